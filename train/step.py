"""One step's loss and gradient: in one pass over the global batch, or in micro-batches with the same result.

In micro-batches it is GradCache (Gao et al. 2021, arXiv 2101.06983): embed all without gradient, a micro-batch at a
time; take the loss of all embeddings and its slope at each; embed again, with gradient, and send those slopes back.
Activations are then those of a micro-batch, for a second forward pass.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train import averaging, ranks
from train.encoder import Encoder
from train.objective import Clock, Features, Loss, Objective
from train.stream import Batch

ABOUT = ("rows", "roles", "labels")  # of a batch, beside its views


@dataclass(frozen=True)
class Way:
    """How a step is taken; its loss and gradient do not depend on it but for rounding, and for what a model draws.

    micro_batch: pairs of a rank that pass the towers at a time; None: all. local_loss: each rank makes its share of
    the logits, not all.
    """

    micro_batch: int | None = None
    local_loss: bool = False


@dataclass(frozen=True)
class Seen:
    """Of the global batch, in its order. rows: its row ids, int64 (N,). tokens: as train.averaging wants them."""

    rows: Tensor
    tokens: list[Tensor]


def learn(
    learner: nn.Module,
    objective: Objective,
    state: nn.Module,
    batch: Batch,
    clock: Clock,
    way: Way,
    *,
    draw: Callable[[int], None] = lambda _: None,
    scaled: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> tuple[Loss, Tensor]:
    """Leave the gradient of the global batch's loss, the same on every rank, in every parameter that learns.

    learner: an Encoder, alone or in DistributedDataParallel. batch: this rank's part, on any device. draw(i): sets the
    generators that a model draws from (dropout) to those of micro-batch i. scaled: what is descended in the loss's
    place, for a GradScaler. Returns the loss and the row ids of the global batch, int64 (N,).
    """
    encoder = cast(Encoder, learner.module if isinstance(learner, DistributedDataParallel) else learner)
    device = encoder.mean.device
    if way.micro_batch is None or way.micro_batch >= len(batch["rows"]):
        draw(0)
        loss, seen = forward(learner, objective, state, on(device, batch), clock, way.local_loss)
        scaled(loss.total).backward()
    else:
        about = on(device, batch, (*ABOUT, "texts"))
        parts = [on(device, part) for part in micro_batches(batch, way.micro_batch)]
        loss, seen = _cached(learner, encoder, objective, state, about, parts, clock, way, draw, scaled)
    averaging.finish(learner, state, seen.tokens)
    return loss, seen.rows


def forward(
    learner: nn.Module, objective: Objective, state: nn.Module, batch: Batch, clock: Clock, local_loss: bool = False
) -> tuple[Loss, Seen]:
    """Encode this rank's part, gather the global batch, and take its loss: the same value on every rank."""
    images, texts, scale = learner(batch["images"], batch["texts"], objective.trainable(clock), batch["present"])
    raw = torch.stack([*images.values(), *texts.values()], dim=1)
    return _compare(raw, (tuple(images), tuple(texts)), scale, objective, state, batch, clock, local_loss)


def _compare(
    raw: Tensor,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    scale: Tensor,
    objective: Objective,
    state: nn.Module,
    batch: Batch,
    clock: Clock,
    local_loss: bool,
) -> tuple[Loss, Seen]:
    """The loss of the global batch. raw: this rank's embeddings, (B, views, D), images first."""
    # The loss compares each image with every caption of the batch, those on other ranks too, so nothing of it can be
    # taken before the gather. Embeddings go raw, since some objectives want them so; length 1 follows from that on
    # every rank alike. With them go row ids, roles and labels, so that row i of every tensor is the same pair.
    parts = [raw, *(batch[name] for name in ABOUT), *averaging.tokens(batch["texts"])]
    raw, *others = ranks.gather_all(parts, same_loss=not local_loss)
    views, raw_views = F.normalize(raw, dim=-1).unbind(dim=1), raw.unbind(dim=1)
    about, tokens = others[: len(ABOUT)], others[len(ABOUT) :]
    images, texts = names
    features = Features(
        images=dict(zip(images, views[: len(images)], strict=True)),
        texts=dict(zip(texts, views[len(images) :], strict=True)),
        raw=dict(zip(images, raw_views[: len(images)], strict=True)),
        **dict(zip(ABOUT, about, strict=True)),  # type: ignore[arg-type]
    )
    with ranks.sharing(local_loss):
        loss = objective.loss(features, scale, clock, state)
    # After the loss: what an objective remembers of this batch (RoCLIP's pool) must not take part in its own loss.
    with torch.no_grad():
        objective.remember(features, clock, state)
    return loss, Seen(features.rows, tokens)


def _cached(
    learner: nn.Module,
    encoder: Encoder,
    objective: Objective,
    state: nn.Module,
    about: Batch,
    parts: list[Batch],
    clock: Clock,
    way: Way,
    draw: Callable[[int], None],
    scaled: Callable[[Tensor], Tensor],
) -> tuple[Loss, Seen]:
    learns = objective.trainable(clock)

    def embedded(through: nn.Module, i: int) -> tuple[Tensor, Tensor, tuple[tuple[str, ...], tuple[str, ...]]]:
        draw(i)  # before either pass, so that both drop the same
        images, texts, scale = through(parts[i]["images"], parts[i]["texts"], learns, parts[i]["present"])
        return torch.stack([*images.values(), *texts.values()], dim=1), scale, (tuple(images), tuple(texts))

    with torch.no_grad():
        found = [embedded(encoder, i) for i in range(len(parts))]
    raw = torch.cat([part for part, *_ in found]).requires_grad_()
    _, scale, names = found[0]
    scale.requires_grad_("scale" in learns)
    loss, seen = _compare(raw, names, scale, objective, state, about, clock, way.local_loss)
    scaled(loss.total).backward()
    slopes = (torch.zeros_like(raw) if raw.grad is None else raw.grad).split([len(part["rows"]) for part in parts])
    for i, slope in enumerate(slopes):
        with _alone(learner, unless=i == len(parts) - 1):
            part, part_scale, _ = embedded(learner, i)
            ends, sent = [part], [slope]
            if scale.grad is not None:  # one share each, and not all of it each time
                ends, sent = [part, part_scale], [slope, scale.grad / len(parts)]
            torch.autograd.backward(ends, sent)
    return loss, seen


def _alone(learner: nn.Module, unless: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients are averaged once, with the last micro-batch's backward pass."""
    if unless or not isinstance(learner, DistributedDataParallel):
        return contextlib.nullcontext()
    return learner.no_sync()


def micro_batches(batch: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of `size` pairs, in order."""
    rows = len(batch["rows"])
    assert rows % size == 0, f"{size} does not divide {rows}"
    view, row = batch["present"] // rows, batch["present"] % rows
    for start in range(0, rows, size):
        here = slice(start, start + size)
        inside = (row >= start) & (row < start + size)
        yield {
            "images": {name: value[here] for name, value in batch["images"].items()},
            "texts": {name: value[here] for name, value in batch["texts"].items()},
            "present": (view * size + row - start)[inside],
            **{name: batch[name][here] for name in ABOUT},
        }


def on(device: torch.device, batch: Batch, names: tuple[str, ...] | None = None) -> Batch:
    """A batch, or those parts of it, on a device."""

    def move(value: Any) -> Any:
        return (
            value.to(device, non_blocking=True) if isinstance(value, Tensor) else {k: move(v) for k, v in value.items()}
        )

    return {name: move(value) for name, value in batch.items() if names is None or name in names}
