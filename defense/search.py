"""The nearest entry to each query, by exact search: FAISS on the GPU, FAISS on the CPU, or torch, with one answer.

Each way finds a few candidates in float32, and no two of them add up alike. Therefore the answer is not theirs: what
rounding could have put in the wrong order is decided once more in float64, by code that the three ways share.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Search = Literal["auto", "faiss-gpu", "faiss-cpu", "torch"]
Way = Literal["faiss-gpu", "faiss-cpu", "torch"]

CANDIDATES = 8  # a query
TIE = 1e-11  # similarities that differ by less are equal; float64 sums of 16,384 terms are three times as exact
QUERIES = 2048  # at a time
SCORES = 2**22  # at a time: 16 MiB of float32, or 32 of float64
BLOCK = 32
UNUSABLE = (ImportError, RuntimeError)  # faiss-gpu without the NVIDIA packages it needs raises the second
GPU_SCRATCH_BYTES = 256 * 2**20  # FAISS would take 1.5 GiB of the GPU for itself


def nearest(queries: Tensor, entries: Tensor, way: Way) -> tuple[Tensor, Tensor]:
    """For each query the place of the entry with the largest inner product, int64 (B,), and that product, float32 (B,).

    queries: float32 (B, D). entries: float32 (N, D), N > 0, contiguous, on the same device; never copied nor changed.
    No row longer than 1 (but for rounding), all finite. Inside autocast or not, and whatever matmul precision is set.
    Needs some 100 MiB beside its arguments, whatever B and N.

    What is guaranteed: of the entries whose similarity lies within TIE of the largest, the lowest place. Hence exact
    duplicates answer with their lowest place, on every device, by every way and with any number of threads. Only
    where two different rows lie 1e-11 apart, give or take 4e-12, may two devices or ways disagree on the place;
    the similarities are then those 1e-11 apart. The similarity is a function of the two rows alone, to the bit.
    """
    assert len(entries) and entries.is_contiguous() and entries.dtype == queries.dtype == torch.float32
    with torch.no_grad(), _full_precision(entries.device):
        parts = [_nearest(part.contiguous(), entries, way) for part in queries.split(QUERIES)]
        places = torch.cat(parts)
        return places, torch.cat(
            [dot(part, entries[found]) for part, found in zip(queries.split(QUERIES), parts, strict=True)]
        ).float()


def choose(search: Search, device: torch.device) -> tuple[Way, str]:
    """The way for a pool on `device`, and why. Raises ValueError if what was asked for cannot be had."""
    on_gpu = device.type == "cuda"
    if search == "auto":
        if not on_gpu:
            return _fastest_on_cpu()
        missing = _no_gpu_search()
        return ("torch", missing) if missing else ("faiss-gpu", "in place")
    if search == "torch":
        return "torch", "as asked for"
    if search == "faiss-gpu":
        if not on_gpu:
            raise ValueError(f"faiss-gpu searches on a GPU, and the pool lies on {device}: set torch or faiss-cpu")
        if missing := _no_gpu_search():
            raise ValueError(f"faiss-gpu was asked for, but {missing}: install clip-antidote[faiss-gpu], or set torch")
        return "faiss-gpu", "as asked for"
    if search != "faiss-cpu":
        raise ValueError(f"{search!r} is no way to search: set auto, faiss-gpu, faiss-cpu or torch")
    if on_gpu:
        raise ValueError(f"faiss-cpu would copy the pool from {device} in every step: set faiss-gpu or torch")
    if missing := _no_faiss():
        raise ValueError(f"{missing}: install clip-antidote[faiss-cpu], or set torch")
    return "faiss-cpu", "as asked for"


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products along the last dimension in float64, the same bits on every device and at every shape.

    left, right: float32 (..., D). A product of two float32 is exact in float64, and halves are added to halves, one
    element at a time: no library chooses the order.
    """
    return total(left.double() * right.double())


def total(terms: Tensor) -> Tensor:
    """The sum along the last dimension, float64 (..., D), likewise."""
    while (width := terms.shape[-1]) > 1:
        half = width // 2
        folded = terms[..., :half] + terms[..., half : 2 * half]
        terms = torch.cat([folded, terms[..., 2 * half :]], dim=-1) if width % 2 else folded
    return terms[..., 0]


def candidates(queries: Tensor, entries: Tensor, count: int, way: Way) -> tuple[Tensor, Tensor]:
    """The `count` largest inner products of every query, in falling order, as float32 has them: (B, count) each.

    Products and places; arguments as for `nearest`. For who decides himself what rounding put in the wrong order.
    """
    with torch.no_grad(), _full_precision(entries.device):
        return WAYS[way](queries, entries, count)


# -------------------------------------------------------------------------------------------- the answer


def _nearest(queries: Tensor, entries: Tensor, way: Way) -> Tensor:
    """Places, int64 (B,): the first candidate where float32 is sure of it."""
    scores, candidates = WAYS[way](queries, entries, min(CANDIDATES, len(entries)))
    # A float32 sum of D products, in any order, is off by at most D 2**-24 times the rows' lengths (Higham 2002, 3.1).
    margin = 2.02 * queries.shape[1] * 2.0**-24
    near = scores >= scores[:, :1] - margin
    places = candidates[:, 0].clone()
    crowded = near[:, -1] if near.shape[1] < len(entries) else torch.zeros_like(near[:, 0])  # others may be as near
    contested = near.sum(dim=1) > 1
    for some in (contested & ~crowded).nonzero()[:, 0].split(max(1, SCORES // queries.shape[1] // CANDIDATES)):
        exact = dot(queries[some, None], entries[candidates[some]]).masked_fill(~near[some], -torch.inf)
        places[some] = _lowest(exact, candidates[some])
    if len(some := crowded.nonzero()[:, 0]):
        places[some] = _in_float64(queries[some], entries)
    return places


def _in_float64(queries: Tensor, entries: Tensor) -> Tensor:
    """Every entry compared in float64, for queries with more near ones than candidates: many duplicates, a collapse."""
    every = torch.arange(len(entries), device=entries.device)
    rows = max(1, SCORES // entries.shape[1])
    found = []
    for some in queries.double().split(max(1, SCORES // len(entries))):
        scores = torch.cat([some @ part.double().T for part in entries.split(rows)], dim=1)
        found.append(_lowest(scores, every.expand_as(scores)))
    return torch.cat(found)


def _lowest(scores: Tensor, places: Tensor) -> Tensor:
    """Of the places whose score is the row's largest, up to TIE, the lowest. float64 and int64 (B, k) -> (B,)."""
    tied = scores >= scores.amax(dim=1, keepdim=True) - TIE
    return places.masked_fill(~tied, torch.iinfo(torch.int64).max).amin(dim=1)


# -------------------------------------------------------------------------------------------- candidates


def _by_torch(queries: Tensor, entries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Scores and places of the `count` largest, in falling order: (B, count).

    The largest `count` of a row lie in its `count` blocks of 32 with the largest maxima: a third of the time of topk.
    """
    rows = max(BLOCK, SCORES // len(queries) // BLOCK * BLOCK)
    best = queries.new_empty((len(queries), 0))
    places = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    within = torch.arange(BLOCK, device=queries.device)
    for start in range(0, len(entries), rows):
        scores = queries @ entries[start : start + rows].T
        keep = min(count, scores.shape[1])
        if missing := -scores.shape[1] % BLOCK:
            scores = F.pad(scores, (0, missing), value=-torch.inf)
        maxima = scores.view(len(queries), BLOCK, -1).amax(dim=1)  # every W-th column: neighbours reduce slower
        blocks = maxima.topk(min(count, maxima.shape[1]), dim=1).indices
        columns = (blocks[:, :, None] + within * maxima.shape[1]).flatten(1)
        values, order = scores.gather(1, columns).topk(keep, dim=1)
        values, found = torch.cat([best, values], dim=1), torch.cat([places, columns.gather(1, order) + start], dim=1)
        best, order = values.topk(min(count, values.shape[1]), dim=1)
        places = found.gather(1, order)
    return best, places


def _by_faiss_cpu(queries: Tensor, entries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    import faiss

    scores, places = faiss.knn(queries.numpy(), entries.numpy(), count, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(scores), torch.from_numpy(places)


def _by_faiss_gpu(queries: Tensor, entries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Reads the entries where they lie: no index, no copy; on torch's stream."""
    import faiss
    import faiss.contrib.torch_utils  # teaches knn_gpu tensors

    device = entries.device.index
    with torch.cuda.device(device):
        return faiss.knn_gpu(  # type: ignore[no-any-return]
            _resources(), queries, entries, count, metric=faiss.METRIC_INNER_PRODUCT, device=device
        )


WAYS: dict[Way, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {
    "torch": _by_torch,
    "faiss-cpu": _by_faiss_cpu,
    "faiss-gpu": _by_faiss_gpu,
}


@functools.cache
def _resources() -> Any:
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_SCRATCH_BYTES)
    return resources


def _fastest_on_cpu() -> tuple[Way, str]:
    """Where PyTorch has AVX-512 it is the faster one; with AVX2, FAISS takes 0.7 of its time (tests/bench/pool.py)."""
    capability = torch.backends.cpu.get_cpu_capability()
    fastest = f"the fastest exact one on a CPU with {capability}"
    if capability == "AVX2":
        missing = _no_faiss()
        return ("torch", missing) if missing else ("faiss-cpu", fastest)
    return "torch", fastest if capability == "AVX512" else "not compared with FAISS on such a CPU"


def _no_faiss() -> str:
    """Why FAISS cannot be used here; empty if it can."""
    try:
        import faiss  # noqa: F401
    except UNUSABLE as error:
        return f"faiss cannot be imported ({error})"
    return ""


@functools.cache
def _no_gpu_search() -> str:
    """Why FAISS cannot search on a GPU here; empty if it can."""
    if missing := _no_faiss():
        return missing
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        return "this build of faiss has no GPU code"
    return "" if faiss.get_num_gpus() else "faiss sees no GPU"


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """The released RoCLIP searches inside autocast: fp16 similarities, and about 1 match in 100 another one."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
