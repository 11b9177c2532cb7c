"""A bounded map over shards: on a Ray cluster, or in this process with `--backend local`.

Each task is idempotent (it commits its result under an exclusive name), so a retry after a lost worker is safe.
What is already committed is not submitted again; what is missing at the end is an error, never a shorter result.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from infra import log

Backend = Literal["ray", "local"]
Task = TypeVar("Task")
Result = TypeVar("Result")


class Transient(Exception):
    """A failure that another attempt may not meet: a reset connection, a busy server, a full queue."""


class Lost(RuntimeError):
    """Some tasks have no result after every retry. The entry exits with status 1."""


RETRIED = (Transient, ConnectionError, TimeoutError)


def spread(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    backend: Backend,
    what: str,
    unit: str,
    weight: Callable[[Result], int] = lambda _: 1,
    total: int | None = None,
    done: int = 0,
    retries: int = 3,
    describe: Callable[[Task], str] = str,
    num_cpus: float = 1.0,
) -> list[Result]:
    """`[work(task) for task in tasks]`, in the order of tasks, at most two tasks a CPU in flight.

    work: a module-level function or a small picklable object. weight: how far one result moves the progress bar.
    Raises Lost that names each task still without a result, with its last error, once everything else is done.
    """
    if not tasks:
        return []
    results: dict[int, Result] = {}
    errors: dict[int, Exception] = {}
    with log.progress(what, total if total is not None else len(tasks), unit, done) as bar:
        run = _on_ray if backend == "ray" else _here
        for index, outcome in run(work, tasks, retries, num_cpus):
            if isinstance(outcome, Exception):
                errors[index] = outcome
                log.warn(f"{what}: {describe(tasks[index])} failed: {_reason(outcome)}")
            else:
                results[index] = outcome
                bar.add(weight(outcome))
    if errors:
        causes = Counter(_reason(error) for error in errors.values())
        named = ", ".join(describe(tasks[index]) for index in sorted(errors)[:10])
        raise Lost(
            f"{what}: {len(errors)} of {len(tasks)} have no result ({named}{', ...' if len(errors) > 10 else ''}); "
            f"causes: {'; '.join(f'{count} x {cause}' for cause, count in causes.most_common(3))}. "
            "What is done is kept: run the same command again to do the rest."
        )
    return [results[index] for index in range(len(tasks))]


def _here(work: Callable[[Any], Any], tasks: Sequence[Any], retries: int, _: float) -> Iterable[tuple[int, Any]]:
    for index, task in enumerate(tasks):
        for attempt in range(retries + 1):
            try:
                yield index, work(task)
                break
            except ValueError:
                raise  # bad input stays bad: no other shard will do better
            except Exception as error:
                if attempt == retries or not isinstance(error, RETRIED):
                    yield index, error
                    break


def _on_ray(
    work: Callable[[Any], Any], tasks: Sequence[Any], retries: int, num_cpus: float
) -> Iterable[tuple[int, Any]]:
    connect()
    import ray

    remote: Any = ray.remote(  # type: ignore[call-overload]
        num_cpus=num_cpus, max_retries=retries, retry_exceptions=list(RETRIED), scheduling_strategy="SPREAD"
    )(_call)
    limit = max(2, int(2 * ray.cluster_resources().get("CPU", 1) / num_cpus))
    waiting = iter(enumerate(tasks))
    flying: dict[Any, int] = {}
    body = ray.put(work)
    while True:
        while len(flying) < limit and (following := next(waiting, None)) is not None:
            index, task = following
            flying[remote.remote(body, task)] = index
        if not flying:
            return
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=5)
        for reference in ready:
            index = flying.pop(reference)
            try:
                yield index, ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, ValueError):
                    for other in flying:
                        ray.cancel(other, force=True)
                    raise cause from None
                yield index, cause
            except ray.exceptions.RayError as error:  # the worker died, and its retries too
                yield index, error


def _call(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)


def connect(num_cpus: int | None = None) -> None:
    """Join the cluster this job runs on, or start one on this machine that is bound to loopback.

    num_cpus: logical CPUs of a started one; this machine's by default.
    """
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        # Ray replaces a node address of 127.0.0.1 by the machine's own and listens on all of its interfaces; only this
        # variable, read when ray is imported and meant for other systems, keeps it on loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # A token left in the home folder by another session would half-enable authentication: say which mode.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    if joins:
        ray.init(logging_level=logging.WARNING)
        return
    inherited = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        runtime_env={"env_vars": inherited} if inherited else None,
        logging_level=logging.WARNING,
    )
    log.say(f"started Ray on this machine: {int(ray.cluster_resources().get('CPU', 0))} CPUs")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def exit_on_loss(run: Callable[[], str]) -> int:
    """Run an entry's work: 0 and its last line, 1 on any loss, 2 on bad input."""
    from infra.config import refuse

    try:
        log.result(run())
        return 0
    except ValueError as error:
        refuse(error)
    except (Lost, OSError) as error:  # a full disk, a server that is gone: what is done is kept
        print(f"error: {error}", file=sys.stderr)
        return 1
