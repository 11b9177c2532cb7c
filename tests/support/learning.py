"""One step of learning, taken apart, for tests that compare ranks, workers and formulas."""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from infra import plugins
from infra.errors import Damaged
from pipeline.dataset import Dataset
from train import averaging, cache, loop, model, nearby, ranks, scoring
from train.encoder import Encoder
from train.objective import EVERYTHING, Clock, Features, Loss, Objective, Pair, Setting, Views, clip_loss
from train.objectives.clip import Clip
from train.step import Way, forward, learn
from train.stream import Pairs, Stream
from train.training import Training

ARCHITECTURE = "tiny-vit"
WORDS = 512  # most of a small step would else be the gradient of 49,408 tokens, nearly all of which no batch holds


def of_few_words() -> model.Architecture:
    found = model.architecture(ARCHITECTURE)
    found["model_cfg"]["text_cfg"]["vocab_size"] = WORDS
    return found


def few_words() -> Callable[[list[str]], torch.Tensor]:
    """A tokenizer for it: some words share a number, but for the two that begin and end a text, the largest."""
    whole = model.tokenizer(of_few_words())

    def tokenize(texts: list[str]) -> torch.Tensor:
        tokens = whole(texts)
        return torch.where(tokens >= 49_406, tokens - 49_406 + WORDS - 2, tokens % (WORDS - 2))

    return tokenize


def objective(name: str) -> Objective:
    return plugins.load(Objective.FOLDERS, name, Objective)()


def stream(
    url: str,
    what: Objective,
    *,
    batch: int,
    workers: int = 0,
    seed: int = 0,
    augment: str = "none",
    tokenize: Callable[[list[str]], torch.Tensor] | None = None,
    on_device: bool = False,
) -> Stream:
    """The stream of this rank."""
    place = ranks.here()
    tokenize = tokenize or model.tokenizer(model.architecture(ARCHITECTURE))
    dataset = Dataset.open(url, labelled=what.classifies)
    with cache.filled(dataset, 1.0, quiet=True) as local:
        pairs = Pairs(local, what, tokenize, size=32, augment=augment, seed=seed, on_device=on_device)  # type: ignore[arg-type]
    return Stream(pairs, seed=seed, batch=batch, rank=place.rank, ranks=place.ranks, workers=workers)


PLAIN, CLOCK = Way(), Clock(0, 0, 4, 0)
WAYS = {"micro-batches": Way(2), "local loss": Way(local_loss=True), "both": Way(2, local_loss=True)}


def gradients(
    url: str,
    what: Objective,
    batch: int,
    steps: int = 1,
    epochs: Sequence[int] = (0,),
    ways: Mapping[str, Way] = MappingProxyType({}),
) -> dict[str, Any]:
    """Loss, matches and gradients by parameter name in float64 for the first batches of these epochs and their last
    one, with this rank's rows. Weights stay as they are; roles and the state are those of a run. In the last one of an
    epoch the same once more in each of `ways`, from the same state, and what that state became.
    """
    place = ranks.here()
    torch.manual_seed(place.rank)  # ranks agree for a better reason than equal seeds
    encoder = Encoder(model.create(of_few_words(), seed=0).double(), *model.mean_and_std(of_few_words()))
    if what.from_start:  # as if it had moved since
        encoder.start = (Encoder(model.create(of_few_words(), seed=1).double(), *model.mean_and_std(of_few_words())),)
    source = stream(url, what, batch=batch, tokenize=few_words())
    torch.manual_seed(0)
    state = what.state(Setting(16, len(source.pairs), classes=4))
    for parameter in state.parameters():
        parameter.data = parameter.data.double()
    learner = averaging.distributed(encoder, what, place)
    in_epoch = len(source.pairs) // batch
    found: dict[str, Any] = {
        "step": [],
        "loss": [],
        "rows": [],
        "matches": [],
        "gradients": [],
        "others": [],
        "state": [],
    }

    def taken(one: dict[str, Any], clock: Clock, state: nn.Module, way: Way) -> dict[str, Any]:
        loss, _ = learn(learner, what, state, one, clock, way)
        named = {name: p.grad.clone() for name, p in encoder.clip.named_parameters() if p.grad is not None}
        named |= {f"state {name}": p.grad.clone() for name, p in state.named_parameters() if p.grad is not None}
        encoder.zero_grad(set_to_none=True)
        state.zero_grad(set_to_none=True)
        return {"loss": float(loss.total.detach()), "matches": loss.matches, "gradients": named}

    for epoch in epochs:
        job: Any = SimpleNamespace(objective=what, seed=0)
        roles = loop._roles(job, encoder, state, source, place, Clock(epoch * in_epoch, epoch, in_epoch, 0))
        first, last = itertools.islice(source.epoch(epoch, 0, roles), steps), source.epoch(epoch, in_epoch - 1, roles)
        for at, one in zip([*range(steps), in_epoch - 1], itertools.chain(first, last), strict=True):
            step = epoch * in_epoch + at
            clock, before = Clock(step, epoch, in_epoch, step * batch), copy.deepcopy(state)
            for name, value in ({"step": step, "rows": one["rows"]} | taken(one, clock, state, PLAIN)).items():
                found[name].append(value)
            others: dict[str, Any] = {}
            for name, way in ways.items() if at == in_epoch - 1 else ():
                own = copy.deepcopy(before)
                others[name] = taken(one, clock, own, way) | {"state": own.state_dict()}
            found["others"].append(others)
        found["state"].append(copy.deepcopy(state.state_dict()))
    return found


def gradients_of_plugins(url: str, names: list[str], batch: int, steps: int, epochs: Sequence[int]) -> dict[str, Any]:
    """`gradients` for each objective by name; one start of the ranks for all of them. url: of a folder that holds
    `pairs` and, for classifiers, `labelled/train`."""
    places = {name: f"{url}/{'labelled/train' if objective(name).classifies else 'pairs'}" for name in names}
    return {name: gradients(places[name], objective(name), batch, steps, epochs, WAYS) for name in names}


def global_batches(url: str, names: list[str], batch: int, workers: list[int], epochs: int = 2) -> dict[str, Any]:
    """Every batch of this rank, by objective and number of workers."""
    found: dict[str, Any] = {}
    for name in names:
        for count in workers:
            one = stream(url, objective(name), batch=batch, workers=count, augment="flip_crop")
            found[f"{name} {count}"] = [each for epoch in range(epochs) for each in one.epoch(epoch)]
    return found


@dataclass(frozen=True, kw_only=True)
class FrozenText(Clip):
    """As RoCLIP's matched epochs: the image tower learns alone."""

    def trainable(self, clock: Clock) -> frozenset[str]:
        return EVERYTHING - {"text"}


def frozen_text(url: str) -> dict[str, Any]:
    return gradients(url, FrozenText(), 16, steps=3)


@dataclass(frozen=True, kw_only=True)
class Sometimes(Clip):
    """Every n-th row has a second text, which its image shall be like; 0: none has."""

    one_in: int = 3

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        extra = f"number {pair.row}" if self.one_in and pair.row % self.one_in == 0 else None
        return Views({"image": pair.image}, {"text": pair.caption, "extra": extra})

    def loss(self, features: Features, scale: torch.Tensor, clock: Clock, state: torch.nn.Module) -> Loss:
        likeness = (features.images["image"] * features.texts["extra"]).sum(dim=1)[features.there("extra")].sum()
        return Loss(super().loss(features, scale, clock, state).total - likeness)


def sometimes(url: str) -> dict[str, Any]:
    return {str(one_in): gradients(url, Sometimes(one_in=one_in), 16, steps=2) for one_in in (1, 3, 0)}


def largest_of_loss() -> dict[str, int]:
    """Numbers in the largest tensor that a loss of 12 pairs makes on this rank, and its gradient."""
    found = {}
    for name, shared in (("all", False), ("share", True)):
        images, texts = (torch.ones(12, 2, requires_grad=True) for _ in range(2))
        with _Largest() as seen, ranks.sharing(shared):
            clip_loss(images, texts, torch.tensor(2.0)).backward()
        found[name] = seen.numel
    return found


class _Largest(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(one.numel() for one in tree_leaves(made) if isinstance(one, torch.Tensor))])
        return made


def gathered() -> dict[str, Any]:
    rank = ranks.here().rank
    part = torch.full((1, 2), rank + 1.0, requires_grad=True)
    whole = ranks.gather(part)
    ((rank + 1) * whole.square().sum()).backward()
    return {"whole": whole.detach(), "gradient": part.grad}


def gathered_together() -> dict[str, Any]:
    """Of three tensors of other types, and the gradient of a loss that is the same on every rank, said so or not."""
    rank, found = ranks.here().rank, {}
    for same_loss in (False, True):
        part = torch.tensor([[1.5, 2.5], [3.5, 4.5]]).add_(10 * rank).requires_grad_()
        rows, wide = torch.tensor([2**53 + 1, rank]), torch.full((2, 1, 3), 0.1 + rank, dtype=torch.float64)
        whole, *others = ranks.gather_all([part, rows, wide], same_loss=same_loss)
        (whole.square().sum() * 3).backward()
        found[str(same_loss)] = {"whole": whole.detach(), "rows": others[0], "wide": others[1], "gradient": part.grad}
    return found


def second_fails() -> torch.Tensor:
    """Of the second rank alone, while the first waits for it."""
    if ranks.here().rank == 1:
        raise ValueError("what the second rank has to say")
    return ranks.gather(torch.zeros(1, 2))


def exchanges_of_a_step(url: str, name: str, architecture: str) -> dict[str, int]:
    """Calls of each collective in a step that is not the first, on tensors of this rank's; and how often tensors are
    shown to the ranks of this machine."""
    what, found = objective(name), dict.fromkeys(("all_gather_into_tensor", "all_reduce", "broadcast", "shown"), 0)
    encoder = Encoder(
        model.create(model.architecture(architecture), 0), *model.mean_and_std(model.architecture(architecture))
    )
    learner, batches = averaging.distributed(encoder, what, ranks.here()), stream(url, what, batch=16).epoch(0)
    learn(learner, what, nn.Module(), next(batches), Clock(0, 0, 4, 0), PLAIN)
    places = {call: ranks._near if call == "shown" else torch.distributed for call in found}
    kept = {call: getattr(place, call) for call, place in places.items()}

    def counted(call: str) -> Callable[..., Any]:
        def counting(*args: Any, **named: Any) -> Any:
            found[call] += 1
            return kept[call](*args, **named)

        return counting

    try:
        for call, place in places.items():
            setattr(place, call, counted(call))
        learn(learner, what, nn.Module(), next(batches), Clock(1, 0, 4, 16), PLAIN)
    finally:
        for call, original in kept.items():
            setattr(places[call], call, original)
    return found


def both_ways(lengths: list[int]) -> dict[str, dict[str, Any]]:
    """Rows of every rank and means over ranks, of some lengths, in shared memory and through gloo."""
    drawn, near, found = torch.Generator().manual_seed(ranks.here().rank), ranks._near, {}
    assert near is not None
    parts = [[torch.randn(3, length, generator=drawn), torch.arange(3 * length).view(3, -1)] for length in lengths]
    for name, place in (("memory", near), ("gloo", None)):
        ranks._near = place
        means = [rows.clone() for rows, _ in parts] + [rows.double() for rows, _ in parts]
        ranks.average(means)
        found[name] = {"rows": [ranks.gather_all(each) for each in parts], "means": means, "way": ranks.way()}
    ranks._near = near
    return found


def apart() -> dict[str, Any]:
    """Whether ranks on two machines show each other anything in memory."""
    kept = nearby._machine
    nearby._machine = lambda: f"machine {ranks.here().rank}"
    try:
        found = nearby.meet(ranks.here().rank, 2, ranks.exchange, timedelta(seconds=60))
    finally:
        nearby._machine = kept
    return {"met": found is not None}


def beside_ddp(url: str) -> dict[str, Any]:
    """Gradients of a step in float32 as we average them, and as DistributedDataParallel does."""
    architecture, found = model.architecture("tiny-resnet"), {}
    batch = next(stream(url, Clip(), batch=16).epoch(0))
    for name in ("ours", "ddp"):
        encoder = Encoder(model.create(architecture, 0), *model.mean_and_std(architecture))
        if name == "ours":
            learn(averaging.distributed(encoder, Clip(), ranks.here()), Clip(), nn.Module(), batch, CLOCK, PLAIN)
        else:
            wrapped = torch.nn.parallel.DistributedDataParallel(encoder)
            forward(wrapped, Clip(), nn.Module(), batch, CLOCK)[0].total.backward()
        found[name] = {key: parameter.grad for key, parameter in encoder.named_parameters()}
    return found


def statistics(url: str) -> dict[str, torch.Tensor]:
    """A BatchNorm's running mean on this rank after a batch of its own, when its tower rests, after another batch, and
    once pairs were scored."""
    place, architecture, found = ranks.here(), model.architecture("tiny-resnet"), {}
    encoder = Encoder(model.create(architecture, 0), *model.mean_and_std(architecture))
    norm = next(module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    source = stream(url, Clip(), batch=16)
    batch = next(source.epoch(0))
    for name, learns in (("learned", EVERYTHING), ("rests", EVERYTHING - {"image"}), ("learned again", EVERYTHING)):
        encoder(batch["images"], batch["texts"], learns)
        found[name] = norm.running_mean.clone()
    scoring.cosines(encoder, source, place, np.arange(4))
    return found | {"scored": norm.running_mean.clone()}


def averaged_rows(steps: list[list[list[int]]]) -> list[torch.Tensor]:
    """What becomes of a gradient of 6 rows, step by step, on a rank that names steps[i][rank]: row v of rank r begins
    as 10 r + v where the rank names it, and as -1 elsewhere, which no one may read."""
    rank, found = ranks.here().rank, []
    for named in steps:
        gradient = torch.full((6, 2), -1.0)
        for ranks_named in named:  # zero on the other ranks, as a gradient is
            gradient[[row for row in ranks_named if row >= 0]] = 0.0
        for row in named[rank]:
            if row >= 0:
                gradient[row] = 10.0 * rank + row
        averaging.average([], [gradient], [ranks.gather(torch.tensor(named[rank]))])
        found.append(gradient)
    return found


def disagreements() -> dict[str, Any]:
    """What each rank sees when one of them fails."""
    rank = ranks.here().rank

    def failing(error: Exception, on: int) -> Callable[[], None]:
        def work() -> None:
            if rank == on:
                raise error

        return work

    def told(error: Exception, on: int, how: Callable[..., Any] = ranks.together) -> str:
        try:
            how(failing(error, on))
        except Exception as failure:
            return f"{type(failure).__name__}: {failure}"
        return "nothing"

    ranks.barrier(timeout_seconds=60)
    return {
        "value error": told(ValueError("batch is odd"), 1),
        "damage": told(Damaged("shard 3 is missing"), 0),
        "bug": told(KeyError("x"), 1),
        "first": told(ValueError("only rank 0 looked"), 0, ranks.first),
        "exchanged": ranks.exchange("rank 0" if rank == 0 else "a longer word from rank 1"),
        "told": ranks.first(lambda: {"step": 7}),
        "barrier": "passed",
    }


def scores(url: str) -> torch.Tensor:
    place = ranks.here()
    encoder = Encoder(model.create(model.architecture(ARCHITECTURE), seed=0), *model.mean_and_std(of_few_words()))
    return torch.from_numpy(scoring.cosines(encoder, stream(url, Clip(), batch=16), place, np.arange(5, 26)))


def trained_on_ranks(run: Training) -> str:
    """A whole run, inside the group that the test's ranks have already."""
    return loop.train(ranks.together(run.job), ranks.here())


def backend_trained_on(run: Training) -> str:
    """The same, and what the ranks spoke through."""
    trained_on_ranks(run)
    return torch.distributed.get_backend()
