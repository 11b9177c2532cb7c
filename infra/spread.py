"""A bounded map over shards: on a Ray cluster, or in this process with `--backend local`.

Each task is idempotent (it commits its result under an exclusive name), so a retry after a lost worker is safe.
What is already committed is not submitted again; what is missing at the end is an error, never a shorter result.
"""

import re
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from infra import log, storage
from infra.cluster import Capacity, connect
from infra.errors import Lost, Transient
from infra.plugins import PACKAGES

Backend = Literal["ray", "local"]
Task = TypeVar("Task")
Result = TypeVar("Result")


RETRIED = (Transient, ConnectionError, TimeoutError)
LOST_NODES = 10  # how often one task may lose its node, which is not its fault; but it may also be what kills nodes


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
    Raises Lost that names each task still without a result, with its last error, once everything else is done; where a
    disk is full, at once.
    """
    if not tasks:
        return []
    results: dict[int, Result] = {}
    errors: dict[int, Exception] = {}
    with log.progress(what, total if total is not None else len(tasks), unit, done) as bar:
        run = _on_ray if backend == "ray" else _here
        for index, outcome in run(work, tasks, retries, num_cpus):
            if _disk_is_full(outcome):
                where = getattr(outcome, "filename", None) or f"the scratch folder {tempfile.gettempdir()} (TMPDIR)"
                raise Lost(
                    f"{what}: {describe(tasks[index])}: no space left on the disk of {where}. "
                    "What is done is kept: make room, and run the same command again to do the rest."
                )
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

    # Ray would count the death of a node like a crash of the task's own, and give a task of a node that is taken away
    # again and again up; and it does not bring back a result that was lost with its node. So it retries nothing: we do.
    remote: Any = ray.remote(num_cpus=num_cpus, max_retries=0, scheduling_strategy="SPREAD")(_call)  # type: ignore[call-overload]
    body = ray.put(work)
    waiting = deque(enumerate(tasks))
    flying: dict[Any, tuple[int, Any]] = {}
    failed: Counter[tuple[int, bool]] = Counter()
    capacity = Capacity(num_cpus)
    while waiting or flying:
        while waiting and len(flying) < capacity.limit():
            index, task = waiting.popleft()
            flying[remote.remote(body, task)] = index, task
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=5)
        capacity.heard(bool(ready), len(flying))
        for reference in ready:
            index, task = flying.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                outcome = error.cause if isinstance(error.cause, Exception) else error
            except ray.exceptions.RayError as error:
                outcome = error
            if isinstance(outcome, Exception):
                outcome = _foreign(outcome) or outcome
            if isinstance(outcome, ValueError) or _disk_is_full(outcome):
                for other in flying:
                    ray.cancel(other, force=True)
            if isinstance(outcome, ValueError):
                raise outcome from None
            if isinstance(outcome, (*RETRIED, ray.exceptions.RayError)):
                node = isinstance(outcome, (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError))
                failed[index, node] += 1
                if failed[index, node] <= (max(retries, LOST_NODES) if node else retries):
                    log.warn(f"a task is tried again: {_reason(outcome)}")
                    waiting.append((index, task))
                    continue
            yield index, outcome


def _disk_is_full(outcome: object) -> bool:
    """Then no other task will do better; and each of thousands would say so."""
    return isinstance(outcome, OSError) and outcome.errno in storage.FULL


def _foreign(error: Exception) -> ValueError | None:
    """Bad input, if a worker could not even import this code."""
    own = re.search(rf"No module named '({'|'.join(PACKAGES)})\b", str(error))
    if own is None:
        return None
    return ValueError(
        f"the cluster's workers do not have this code ({own.group()}'): give the command by "
        "`ray job submit --working-dir . -- python ...`, or install clip-antidote on every node"
    )


def _call(work: Callable[[Any], Any], task: Any) -> Any:
    return work(task)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
