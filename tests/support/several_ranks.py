"""Real ranks for a test: processes of their own, over gloo on loopback.

They are started once and kept for the whole test run, since importing torch and open_clip takes longer than any test.
"""

import atexit
import io
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.support.ports import free_port

_waiting: list[tuple[Any, Connection]] = []


def on_ranks(num_ranks: int, work: Callable[..., Any], *args: Any, seconds: float = 180) -> list[Any]:
    """`work(*args)` in `num_ranks` processes inside `train.ranks.group()`; their results in rank order.

    work: a module-level function; its result: tensors, numbers, strings and containers of them.
    """
    while len(_waiting) < num_ranks:
        _waiting.append(_start())
    port = free_port()
    for rank in range(num_ranks):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "MASTER_PORT": port}
        environment = {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}
        environment["ANTIDOTE_CACHE"] = os.environ["ANTIDOTE_CACHE"]
        _waiting[rank][1].send((environment, work, args))
    deadline, results = time.monotonic() + seconds, []
    for rank in range(num_ranks):
        connection = _waiting[rank][1]
        if not connection.poll(max(0.0, deadline - time.monotonic())):
            results.append(f"rank {rank} hung for {seconds:.0f} s")
            continue
        results.append(connection.recv())
    if errors := [result for result in results if isinstance(result, str)]:
        _stop()
        raise AssertionError("\n".join(errors))
    return [torch.load(io.BytesIO(result), weights_only=True) for result in results]


def _start() -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,))  # not a daemon: those may have no loader workers
    process.start()
    theirs.close()  # so that it reads an end of file when this process is gone
    return process, ours


def _serve(connection: Connection) -> None:
    torch.set_num_threads(1)
    from train import ranks

    while True:
        try:
            environment, work, args = connection.recv()
        except EOFError:
            return
        os.environ.update(environment)
        try:
            with ranks.group():
                buffer = io.BytesIO()
                torch.save(work(*args), buffer)
            connection.send(buffer.getvalue())
        except Exception:
            connection.send(f"rank {environment['RANK']}:\n{traceback.format_exc()}")


@atexit.register
def _stop() -> None:
    for process, connection in _waiting:
        connection.close()
        process.kill()
        process.join()
    _waiting.clear()
