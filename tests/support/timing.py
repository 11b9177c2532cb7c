"""A model and a batch on a device, and how long a step with them takes: for the benches that a GPU runs too."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from train import model
from train.encoder import Encoder
from train.step import ABOUT, on
from train.stream import Batch

Work = Callable[[], object]


def encoder(name: str, device: torch.device) -> Encoder:
    """A model by name with new weights, in the precision that the loop takes there by itself."""
    architecture, low = model.architecture(name), torch.bfloat16 if device.type == "cuda" else None
    return Encoder(model.create(architecture, seed=0), *model.mean_and_std(architecture), autocast=low).to(device)


def batch(
    name: str,
    pairs: int,
    device: torch.device,
    images: tuple[str, ...] = ("image",),
    texts: tuple[str, ...] = ("text",),
) -> Batch:
    """A batch of a model's size as the stream makes them, of random pixels; every view is another one."""
    architecture = model.architecture(name)
    size, tokenize, drawn = model.image_size(architecture), model.tokenizer(architecture), torch.Generator()
    drawn.manual_seed(0)
    made: Batch = {
        "images": {
            view: torch.randint(0, 256, (pairs, 3, size, size), dtype=torch.uint8, generator=drawn) for view in images
        },
        "texts": {view: tokenize([f"a {view} of a red car number {row}" for row in range(pairs)]) for view in texts},
        "present": torch.arange(pairs * len(texts)),
        **{about: torch.arange(pairs) for about in ABOUT},
    }
    return on(device, made)


def milliseconds(work: Work, device: torch.device | str) -> float:
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return (time.perf_counter() - start) * 1000


def wait(device: torch.device | str) -> None:
    """Until the GPU has done what it was told to."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def in_turn(ways: Mapping[str, Work], rounds: int, device: torch.device, warm_up: int = 2) -> list[dict[str, float]]:
    """Milliseconds of each way in every round, the first of a round another one each time; the first rounds warm up
    and are not in it."""
    names, found = list(ways), []
    for number in range(rounds + warm_up):
        at = number % len(names)
        took = {name: milliseconds(ways[name], device) for name in names[at:] + names[:at]}
        print(f"round {number}: " + ", ".join(f"{name} {took[name]:,.1f}" for name in names) + " ms")
        found.append(took)
    return found[warm_up:]


def middle(rounds: list[dict[str, float]], name: str, over: str | None = None) -> float:
    """The median of a way's milliseconds, or of its ratio to another's of the same round."""
    return statistics.median(each[name] / (1 if over is None else each[over]) for each in rounds)


def peak_gib(work: Work, device: torch.device, aside: int = 0) -> float | None:
    """The most GPU memory that tensors held while it worked, in GiB, but for `aside` bytes; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    wait(device)
    torch.cuda.reset_peak_memory_stats()
    work()
    wait(device)
    return (torch.cuda.max_memory_allocated() - aside) / 2**30


def held(device: torch.device) -> int:
    """Bytes that tensors hold on a GPU now."""
    gc.collect()
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0
