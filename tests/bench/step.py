"""What the loop adds to a step of learning, what ranks bring, and what micro-batches cost.

    python tests/bench/step.py [--batch 128] [--rounds 5] [--steps 3] [--large 1024] [--micro 128] [--model tiny-vit]
                               [--ranks-batch 64] [--ranks-model picturebook-resnet]

Paired in one run, medians over rounds, processor time where one process is measured:

- step_over_bare: a step as the loop takes it, over open_clip's own forward pass, ClipLoss, backward pass and the same
  optimiser's step, same batch and one model: where two lie in memory alone makes a hundredth. Ten times as many rounds.
- ranks_over_side_by_side: pairs a second of two ranks that learn the demo's model, over those of two trainings of half
  the batch side by side, a core each, all after three steps that warm up; of side by side over one alone, too, since
  cores share their memory. Where others work on these cores, the same by processor seconds (..._by_cpu) is the steadier
  number: it leaves out who waits.
- micro_over_plain: a step of `--large` pairs in micro-batches of `--micro` over one in a single pass, of a ViT of four
  layers (`vit`); on_tiny_micro_over_plain: of `--model`, where a pass of 128 pairs is largely dispatch and the gradient
  of 49,408 tokens. micro_memory_over_small: the bytes that its passes keep for the way back, inputs and logits aside,
  over those of a plain step of `--micro` pairs.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from tests.support import figures
from tests.support.ports import free_port
from train import averaging, model, optim, ranks, transforms
from train.encoder import Encoder
from train.objective import Clock
from train.objectives.clip import Clip
from train.step import Way, learn
from train.stream import Batch

CLOCK = Clock(0, 0, 1, 0)
SETTINGS = {"lr": 1e-4, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}


def batch_of(architecture: model.Architecture, pairs: int) -> Batch:
    size, drawn = model.image_size(architecture), torch.Generator().manual_seed(0)
    rows = torch.arange(pairs)
    return {
        "images": {"image": torch.randint(0, 256, (pairs, 3, size, size), dtype=torch.uint8, generator=drawn)},
        "texts": {"text": model.tokenizer(architecture)([f"a red house number {row}" for row in range(pairs)])},
        "present": rows,
        **dict.fromkeys(("rows", "roles", "labels"), rows),
    }


def vit() -> model.Architecture:
    """Large enough that its arithmetic is what is measured, small enough to take 1,024 pairs at once."""
    found = model.architecture("tiny-vit")
    found["model_cfg"] |= {"embed_dim": 64}
    found["model_cfg"]["vision_cfg"] |= {"width": 128, "layers": 4, "head_width": 32}
    found["model_cfg"]["text_cfg"] |= {"width": 64, "layers": 2}
    return found


def ours(
    architecture: model.Architecture,
    pairs: int,
    way: Way = Way(),  # noqa: B008
    encoder: Encoder | None = None,
) -> Callable[[], None]:
    """One step as train.loop takes it. encoder: what learns; None: a new one."""
    place = ranks.here()
    encoder = encoder or Encoder(model.create(architecture, 0), *model.mean_and_std(architecture))
    learner, state = averaging.distributed(encoder, Clip(), place), nn.Module()
    update, given = optim.Update(optim.adamw([encoder], **SETTINGS)), batch_of(architecture, pairs)

    def step() -> None:
        learn(learner, Clip(), state, given, CLOCK, way, scaled=update.scaled)
        update.take()
        optim.clamp_logit_scale(encoder.clip)

    return step


def bare(architecture: model.Architecture, pairs: int, encoder: Encoder) -> Callable[[], None]:
    """The same of its model by open_clip's own parts."""
    clip, layout = encoder.clip, encoder.layout
    optimizer, given, criterion = optim.adamw([clip], **SETTINGS), batch_of(architecture, pairs), ClipLoss()

    def step() -> None:
        pixels = given["images"]["image"].contiguous(memory_format=layout)
        pixels = transforms.normalised(pixels, encoder.mean, encoder.std)
        images, texts = (
            clip.encode_image(pixels, normalize=True),
            clip.encode_text(given["texts"]["text"], normalize=True),
        )
        criterion(images, texts, clip.logit_scale.exp()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    start = time.process_time()
    for _ in range(steps):
        step()
    return time.process_time() - start


def ratio(one: Callable[[], None], other: Callable[[], None], rounds: int, steps: int) -> float:
    """Median over rounds of the time of `one` over that of `other`, in turn, after a step of each to warm up."""
    one()
    other()
    found = []
    for at in range(rounds):
        pair = (one, other) if at % 2 else (other, one)
        taken = {step: seconds(step, steps) for step in pair}
        found.append(taken[one] / taken[other])
    return statistics.median(found)


def kept_bytes(step: Callable[[], None], aside: set[tuple[int, ...]]) -> int:
    """The most that is held at a time for the way back, parameters and shapes of `aside` apart."""
    held, most = 0, 0

    class Kept:
        def __init__(self, value: Tensor) -> None:
            nonlocal held, most
            self.value, self.bytes = value, value.untyped_storage().nbytes()
            owner = value.untyped_storage().data_ptr()
            self.counted = not isinstance(value, nn.Parameter) and tuple(value.shape) not in aside
            self.owner = owner
            if self.counted and counts.setdefault(owner, 0) == 0:
                held += self.bytes
                most = max(most, held)
            if self.counted:
                counts[owner] += 1

        def __del__(self) -> None:
            nonlocal held
            if self.counted:
                counts[self.owner] -= 1
                held -= self.bytes if counts[self.owner] == 0 else 0

    counts: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.value):
        step()
    return most


# Ranks, and trainings side by side


Pace = tuple[float, float]  # pairs a second by the clock, and seconds of processor time a pair


def timed(rank: int, name: str, pairs: int, steps: int, ports: list[int], out: Any, wait: Any) -> None:
    """One of two processes, with one thread each: for every port a round of (alone, side by side, as two ranks), each
    the pace of this process; alone the other one waits."""
    torch.set_num_threads(1)
    found, architecture = [], model.architecture(name)
    for port in ports:
        alone = pace(ours(architecture, pairs), pairs, steps) if rank == 0 else (0.0, 0.0)
        wait.wait()
        step = ours(architecture, pairs)
        wait.wait()
        beside = pace(step, pairs, steps)
        wait.wait()
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {key: str(value) for key, value in places.items()}
        with ranks.group():
            together = pace(ours(architecture, pairs), pairs, steps)
            ranks.barrier()
        for key in places:
            del os.environ[key]
        found.append((alone, beside, together))
        wait.wait()
    out.put(found)


def pace(step: Callable[[], None], pairs: int, steps: int) -> Pace:
    # The second step still takes new memory, of a phase whose predecessor's was given back.
    for _ in range(3):
        step()
    start, spent = time.perf_counter(), time.process_time()  # of all threads
    for _ in range(steps):
        step()
    return steps * pairs / (time.perf_counter() - start), (time.process_time() - spent) / (steps * pairs)


def on_two_cores(name: str, pairs: int, steps: int, rounds: int) -> list[tuple[Pace, ...]]:
    """A round each: the paces, added up over processes, of one alone, of two side by side, and of two ranks."""
    context = multiprocessing.get_context("spawn")
    out, wait, ports = context.Queue(), context.Barrier(2), [free_port() for _ in range(rounds)]
    work = [context.Process(target=timed, args=(rank, name, pairs, steps, ports, out, wait)) for rank in range(2)]
    for process in work:
        process.start()
    first, second = (out.get(timeout=3600) for _ in work)
    for process in work:
        process.join()
    both = [zip(one, other, strict=True) for one, other in zip(first, second, strict=True)]
    return [tuple((a[0] + b[0], a[1] + b[1]) for a, b in paces) for paces in both]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"batch": 128, "rounds": 5, "steps": 3, "large": 1024, "micro": 128, "ranks-batch": 64}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="tiny-vit")
    parser.add_argument("--ranks-model", default="picturebook-resnet")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tiny, large, micro = model.architecture(given.model), given.large, given.micro
    encoder = Encoder(model.create(tiny, 0), *model.mean_and_std(tiny))
    pair = ours(tiny, given.batch, encoder=encoder), bare(tiny, given.batch, encoder)
    found = {"step_over_bare": ratio(*pair, given.rounds * 10, given.steps)}
    for name, architecture in (("", vit()), ("on_tiny_", tiny)):
        cached = ours(architecture, large, Way(micro))
        found[f"{name}micro_over_plain"] = ratio(cached, ours(architecture, large), given.rounds, 1)
    logits = {(large, large), (micro, micro)}
    found["micro_memory_over_small"] = kept_bytes(cached, logits) / kept_bytes(ours(tiny, micro), logits)
    rounds = on_two_cores(given.ranks_model, given.ranks_batch // 2, given.steps * 2, given.rounds)
    for name, paces in zip(("one alone", "two side by side", "two ranks"), zip(*rounds, strict=True), strict=True):
        print(f"{name}: {statistics.median(one[0] for one in paces):,.0f} pairs/s")
    found["ranks_over_side_by_side"] = statistics.median(together[0] / beside[0] for _, beside, together in rounds)
    by_cpu = [beside[1] / together[1] for _, beside, together in rounds]
    found["ranks_over_side_by_side_by_cpu"] = statistics.median(by_cpu)
    found["side_by_side_over_one"] = statistics.median(beside[0] / alone[0] for alone, beside, _ in rounds)
    slower = [beside[1] / 2 / alone[1] for alone, beside, _ in rounds]  # each of the two
    found["side_by_side_over_one_by_cpu"] = statistics.median(2 / each for each in slower)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(figures.line(found))


if __name__ == "__main__":
    main()
