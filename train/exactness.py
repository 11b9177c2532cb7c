"""What the last bits of a result depend on beside the configuration: threads, ranks, versions, the kind of processor.

On CPUs a long sum is taken in as many parts as there are threads, so another number of threads gives other last bits.
The number is therefore the run's own: what it began with, later starts of it use too, on whatever machine. What else
differs cannot be brought back, and is said. So are the settings of a step that may change on the way.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from infra import log, rundir
from train import ranks

# Of a start, beside its ranks and threads.
WAY = ("micro_batch", "local_loss", "grad_checkpointing", "compile", "exchange")


@contextlib.contextmanager
def kept(
    run: str, step: int, num_ranks: int, device: torch.device, way: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """While open, every rank computes with the threads that this run began with.

    run: its folder, with a record of every start. step: where this start goes on; 0 begins anew, with the threads of
    rank 0. way: by which settings it goes on that a resumed run may change, by name, as in the record. Nothing is done
    on GPUs, where nothing is promised.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(ranks.first(lambda: _threads(run, step, num_ranks, way or {})))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads(run: str, step: int, num_ranks: int, way: Mapping[str, Any]) -> int:
    """How many to use; says what differs from the start that the weights come from."""
    threads = torch.get_num_threads()
    starts = [start for start in rundir.environment(run)["attempts"] if start["step"] == 0]
    if step == 0 or not starts:
        return threads
    first, cores = starts[-1], _cores()
    if threads != first["threads"] <= cores:
        log.say(f"with {_some(first['threads'])} a rank, as this run began; {threads} would give other weights")
        threads = first["threads"]
    now = {"ranks": num_ranks, "threads": threads, "versions": rundir.versions(), "hardware": rundir.hardware()}
    now |= {**way, **ranks.way()}
    if changes := [f"{name} {then} then, {this} now" for name, then, this in _differences(first, now)]:
        log.warn(f"what {run} began with is not what it goes on with ({'; '.join(changes)}): its weights can differ in "
                 "their last bits from those of an undisturbed run")  # fmt: skip
    return threads


def _differences(first: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(what, then, now); the version of our own code is left out, since a commit seldom touches the numbers."""
    for start in (first, now):
        start.setdefault("ranks", 1)  # where there are none, as in the learning of a patch
    for name in ("ranks", "threads", *WAY):
        if first.get(name) != now.get(name):
            yield name, first.get(name), now.get(name)
    for group, names in (("versions", sorted({*now["versions"]} - {"code"})), ("hardware", ["processor", "gpus"])):
        for name in names:
            then, this = first[group].get(name), now[group].get(name)
            if then != this:
                yield name, then, this


def _some(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
