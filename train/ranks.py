"""Several processes as one: the process group, agreement on errors, and a gather that has a gradient.

Nothing else in `train` asks how many ranks there are, but for the batch's slices and the checkpoints' writer. Without
torchrun all of it works on one process and does nothing.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from infra.errors import Damaged, Lost
from train import nearby

T = TypeVar("T")

STEP_TIMEOUT = timedelta(minutes=30)  # for a collective of a training step; rank 0 may be writing a large checkpoint
WORK_TIMEOUT = timedelta(
    hours=12
)  # for `together` and `first`: a rank may be fetching shards; its death is seen at once
_control: Any = None  # a gloo group of its own, since nccl's time-out is one for all collectives
_near: nearby.Nearby | None = None  # where tensors of a step go; None: through torch's process group
_sharing = False  # whether a loss is now taken in shares


class Elsewhere(RuntimeError):
    """Another rank failed; its message was shown there."""


@dataclass(frozen=True)
class Place:
    """Where this process stands among the ranks, from torchrun's environment. local_ranks: those of this node."""

    rank: int
    ranks: int
    local_rank: int
    device: torch.device
    local_ranks: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def first_of_node(self) -> bool:
        return self.local_rank == 0


def here() -> Place:
    """This process's place; known before the group is started. Raises ValueError if ranks outnumber the node's GPUs."""
    rank, ranks, local = (
        int(os.environ.get(name, one)) for name, one in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    node = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    if not torch.cuda.is_available():
        return Place(rank, ranks, local, torch.device("cpu"), node)
    if local >= torch.cuda.device_count():
        raise ValueError(f"this machine has {torch.cuda.device_count()} GPUs: set --nproc-per-node to at most that")
    return Place(rank, ranks, local, torch.device("cuda", local), node)


@contextlib.contextmanager
def group() -> Iterator[Place]:
    """The process group, for the length of a run: nccl on GPUs, gloo on CPUs, none for a single process.

    What ranks on CPUs tell each other in a step goes through shared memory where one machine has them all.
    """
    global _control, _near
    place = here()
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _die_with_torchrun()
    if place.ranks == 1:
        yield place
        return
    on_gpu = place.device.type == "cuda"
    store = _store(place)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        timeout=STEP_TIMEOUT,
        store=store,
        rank=place.rank if store else -1,
        world_size=place.ranks if store else -1,
        device_id=place.device if on_gpu else None,
    )
    _control = dist.new_group(backend="gloo", timeout=WORK_TIMEOUT)
    _near = None if on_gpu else nearby.meet(place.rank, place.ranks, exchange, STEP_TIMEOUT)
    yield place
    # Not where a rank fails: it closes its connections as its process ends, after it has said why. A neighbour that
    # loses them earlier is the first to end, and torchrun then ends the rank that could have spoken.
    if _near is not None:
        _near.close()
    _control = _near = None
    dist.destroy_process_group()


def _store(place: Place) -> dist.Store | None:
    """Where the ranks of this start find each other; None: where torch looks by itself.

    torchrun keeps one store for all its starts. What a killed rank left in it, its port among others, would be read
    by the ranks that come after it: so every start has names of its own there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=STEP_TIMEOUT)
    return dist.PrefixStore(agreed_name(shared, place.rank, place.ranks, STEP_TIMEOUT.total_seconds()), shared)


def agreed_name(store: dist.Store, rank: int, ranks: int, timeout_seconds: float) -> str:
    """A name that all ranks of this start have and no earlier one had, whatever dead ranks left in the store.

    torchrun's count of restarts will not do: a node whose ranks were not the first to fail counts fewer. Raises Lost.
    """
    name, deadline = uuid.uuid4().hex, time.monotonic() + timeout_seconds
    if rank > 0:
        store.set(f"antidote/{rank}", name)
        try:
            store.wait([f"antidote/{name}"], timedelta(seconds=timeout_seconds))  # a dead rank 0 answers no new name
        except dist.DistStoreError as error:
            raise Lost(f"rank 0 did not come within {timeout_seconds:,.0f} s") from error
        agreed = store.get(f"antidote/{name}").decode()
        store.add(f"antidote/{agreed}/came", 1)
        return agreed
    answered: set[str] = set()
    while store.add(f"antidote/{name}/came", 0) < ranks - 1:
        known = [f"antidote/{other}" for other in range(1, ranks) if store.check([f"antidote/{other}"])]
        for theirs in {store.get(key).decode() for key in known} - answered:
            store.set(f"antidote/{theirs}", name)
            answered.add(theirs)
        if time.monotonic() > deadline:
            raise Lost(f"not all of the {ranks} ranks came within {timeout_seconds:,.0f} s")
        time.sleep(0.02)
    return name


def _of_all(lines: list[Tensor]) -> list[Tensor]:
    """Every rank's rows of each, in rank order: uint8 (B, n) -> (ranks * B, n)."""
    rows, widths = len(lines[0]), [line.shape[1] for line in lines]
    if _near is None:
        line = torch.cat(lines, dim=1)
        whole = line.new_empty((dist.get_world_size() * rows, line.shape[1]))
        dist.all_gather_into_tensor(whole, line)
        return [column.contiguous() for column in whole.split(widths, dim=1)]

    def fill(own: Tensor) -> None:
        torch.cat(lines, dim=1, out=own.view(rows, -1))

    with _near.shown(rows * sum(widths), torch.uint8, fill) as shown:
        parts = [each.view(rows, -1).split(widths, dim=1) for each in shown]
        return [torch.cat(column) for column in zip(*parts, strict=True)]


def _summed(lines: list[Tensor], parts: int = 1) -> Tensor:
    """Of each (n,), laid end to end and divided by `parts`, the sum over ranks; a copy."""

    def fill(own: Tensor) -> None:
        torch.cat(lines, out=own)
        if parts > 1:
            own /= parts

    numbers, dtype = sum(len(line) for line in lines), lines[0].dtype
    if _near is None:
        line = lines[0].new_empty(numbers)
        fill(line)
        dist.all_reduce(line)
        return line
    with _near.shown(numbers, dtype, fill) as shown:
        line = shown[0] + shown[1]
        for other in shown[2:]:
            line += other
        return line


class _Gather(torch.autograd.Function):
    """All-gather along dimension 0. Its gradient is that of the sum of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, same_loss: bool, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.rows, ctx.same_loss = len(parts[0]), same_loss
        ctx.set_materialize_grads(False)
        # As bytes, whatever they are: each collective is a wait for the slowest rank.
        columns = _of_all([part.reshape(ctx.rows, -1).contiguous().view(torch.uint8) for part in parts])
        found = tuple(
            column.view(part.dtype).view(len(column), *part.shape[1:])
            for column, part in zip(columns, parts, strict=True)
        )
        ctx.mark_non_differentiable(*(each for each in found if not each.is_floating_point()))
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # Every rank holds a gradient for all rows, from its own copy of the loss. A row was encoded on one rank only,
        # so that rank needs the sum of them all.
        start = dist.get_rank() * ctx.rows
        own = slice(start, start + ctx.rows)

        def summed(gradient: Tensor) -> Tensor:
            if ctx.same_loss:
                return gradient[own] * dist.get_world_size()
            return _summed([gradient.reshape(-1)]).view(gradient.shape)[own]

        return None, *(None if gradient is None else summed(gradient) for gradient in gradients)


def gather(part: Tensor) -> Tensor:
    """This rank's rows (B, ...) -> every rank's, in rank order (ranks * B, ...), with gradient.

    Where every rank computes the same loss of the whole, a rank's gradient is `ranks` times that of one process, and
    the mean over ranks makes it exactly that one (open_clip's default gather is 1/ranks of it).
    """
    return gather_all([part])[0]


def gather_all(parts: Sequence[Tensor], *, same_loss: bool = False) -> list[Tensor]:
    """`gather` of several tensors of B rows each, of any dtype, in one collective; those of floats have a gradient.

    same_loss: every rank takes the same loss of the whole, so that the gradient needs no word from the others.
    """
    if not dist.is_initialized():
        return list(parts)
    return list(_Gather.apply(same_loss, *parts))


class _Total(torch.autograd.Function):
    """The sum over ranks, on every rank. As of `_Gather`, its gradient is that of the sum of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        return _summed([part.reshape(-1)]).view(part.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _summed([gradients[0].reshape(-1)]).view(gradients[0].shape)


def total(part: Tensor) -> Tensor:
    """The sum of every rank's tensor, with gradient, in the same sense as that of `gather`."""
    if not dist.is_initialized():
        return part
    whole: Tensor = _Total.apply(part)
    return whole


@contextlib.contextmanager
def sharing(on: bool) -> Iterator[None]:
    """While open and `on`, the rows of a contrastive loss are shared out among the ranks (see `share`)."""
    global _sharing
    before, _sharing = _sharing, on and dist.is_initialized()
    try:
        yield
    finally:
        _sharing = before


def share(rows: int) -> slice | None:
    """Which of so many rows of logits this rank makes, where they are shared out; None where every rank makes all.

    The shares of all ranks are all rows, each once; a share may be empty. The loss is then the `total` of the shares'.
    """
    if not _sharing:
        return None
    rank, ranks = dist.get_rank(), dist.get_world_size()
    return slice(rank * rows // ranks, (rank + 1) * rows // ranks)


def average(tensors: Sequence[Tensor]) -> None:
    """The mean over ranks, in place, of tensors that every rank has in the same shapes; one collective for each dtype.

    They may not overlap, and have no gaps in memory.
    """
    if not dist.is_initialized():
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        lines = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors if tensor.dtype == dtype]
        line = _summed(lines, dist.get_world_size())
        for mine, mean in zip(lines, line.split([len(each) for each in lines]), strict=True):
            mine.copy_(mean)


def from_first(tensors: Iterable[Tensor]) -> None:
    """Rank 0's values on every rank, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def way() -> dict[str, Any]:
    """How numbers are added up over ranks where it is not as usual, as `way` of train.exactness: gloo has an order of
    its own. A sum of two is one and the same."""
    return {"exchange": "gloo"} if _near is None and dist.is_initialized() and dist.get_world_size() > 2 else {}


def exchange(value: Any) -> list[Any]:
    """A JSON value from every rank, in rank order, on every rank."""
    if _control is None:
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(data)]), group=_control)
    longest = max(int(size) for size in sizes)
    parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(parts, torch.nn.functional.pad(data, (0, longest - len(data))), group=_control)
    return [json.loads(bytes(part[: int(size)].numpy())) for part, size in zip(parts, sizes, strict=True)]


def together(work: Callable[[], T]) -> T:
    """`work()` on every rank; a failure on any is a failure on all, with the same message. Nobody waits for ever."""
    failure: Exception | None = None
    report = None
    try:
        result = work()
    except Exception as error:  # not swallowed: told to the other ranks, then raised here
        failure = error
        kind = next((kind for kind in (ValueError, Damaged, Lost) if isinstance(error, kind)), None)
        if kind is None and isinstance(error, OSError):
            kind = Lost
        report = [kind.__name__ if kind else "", str(error)]
    reports = exchange(report)
    if failure is not None:
        raise failure
    for rank, other in enumerate(reports):
        if other is not None:
            kinds = {kind.__name__: kind for kind in (ValueError, Damaged, Lost)}
            raise kinds[other[0]](other[1]) if other[0] else Elsewhere(f"rank {rank} failed: {other[1]}")
    return result


def first(work: Callable[[], T]) -> T:
    """`work()` on rank 0 alone; its result, a JSON value, or its failure on every rank."""
    place = here()
    value = together(lambda: work() if place.first else None)
    result: T = exchange(value if place.first else None)[0]
    return result


def barrier(timeout_seconds: float = 1800.0) -> None:
    """Wait for every rank. Raises RuntimeError that names a rank which did not come in time."""
    if _control is not None:
        dist.monitored_barrier(group=_control, timeout=timedelta(seconds=timeout_seconds))


def _die_with_torchrun() -> None:
    """kill -9 of torchrun leaves its ranks training, into the folder that the same command then resumes from."""
    parent = os.getppid()
    if parent == 1 and Path("/proc/1/cmdline").exists() and b"torch" not in Path("/proc/1/cmdline").read_bytes():
        os._exit(1)  # killed while this process was still importing; in a container torchrun may itself be process 1

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-torchrun").start()
