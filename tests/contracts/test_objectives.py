"""What every objective must do, in every phase it has; a new file in an objectives folder is tested here by itself."""

import copy
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infra import config, plugins
from infra.seeding import digest64, rng
from pipeline.images import open_image
from tests.support.drawn import drawn, labelled, samples
from tests.support.learning import WAYS, gradients_of_plugins, objective
from tests.support.several_ranks import on_ranks
from train.objective import EVERYTHING, START, Clock, Features, Loss, Objective, Pair, Setting

NAMES = plugins.names(Objective.FOLDERS)
each = pytest.mark.parametrize("name", NAMES)
EPOCHS, STEPS, WIDTH, CLASSES = 9, 70, 6, 4  # 2% of a dataset, RoCLIP's pool, are no whole batches
CAPTIONS = ("", "!!!", "42", "a", "\U0001f34c", "word " * 200, "a red car next to a small house")


def variants() -> Iterator[tuple[str, Objective]]:
    """Every objective as it comes, and with each other choice that one of its fields offers by name."""
    for name in NAMES:
        what = objective(name)
        yield name, what
        for knob, hint in typing.get_type_hints(type(what)).items():
            for choice in typing.get_args(hint) if typing.get_origin(hint) is Literal else ():
                if choice != getattr(what, knob):
                    yield f"{name}-{knob}-{choice}", replace(what, **{knob: choice})


def can_be_had(what: Objective) -> bool:
    """A choice may want what this machine lacks, a GPU; what an objective does by default must work everywhere."""
    try:
        state_of(what, 8)
    except ValueError:
        return what == type(what)()
    return True


def state_of(what: Objective, batch: int) -> nn.Module:
    torch.manual_seed(0)
    return what.state(Setting(WIDTH, samples=STEPS * batch, classes=CLASSES))


VARIANTS = dict(variants())
HERE = {name: what for name, what in VARIANTS.items() if can_be_had(what)}
every = pytest.mark.parametrize("what", VARIANTS.values(), ids=VARIANTS)
every_here = pytest.mark.parametrize("what", HERE.values(), ids=HERE)


def pair(row: int = 0, caption: str | None = None, role: int = 0) -> Pair:
    sample = samples(1, first=row)[0]
    return Pair(row, open_image(sample.image), sample.caption if caption is None else caption, role, row % CLASSES)


# A run without a model: random embeddings under the names of an objective's own views


@dataclass(frozen=True)
class Moment:
    """What the loop holds when it asks for a loss."""

    clock: Clock
    features: Features
    scale: Tensor
    state: nn.Module

    def loss(self, what: Objective) -> Loss:
        return what.loss(self.features, self.scale, self.clock, self.state)

    def leaves(self) -> dict[str, list[Tensor]]:
        """By part of the model, as in EVERYTHING."""
        given = self.features
        images = [*given.images.values(), *given.raw.values()]
        return {"image": images, "text": [*given.texts.values()], "scale": [self.scale]}


def run_of(what: Objective, batch: int = 8, learning: bool = True) -> Iterator[Moment]:
    """The first two steps and the last of nine epochs, as the loop comes by: roles at an epoch's start, in every step
    a loss, which is for whoever asks to take, then `remember`. learning: whether anything has a gradient.
    """
    what.ready()
    state, rows = state_of(what, batch), np.arange(100, 100 + STEPS * batch)
    for epoch in range(EPOCHS):
        roles = roles_of(what, epoch, rows, state)
        for step in (0, 1, STEPS - 1):
            here = slice(step * batch, (step + 1) * batch)
            clock = Clock(epoch * STEPS + step, epoch, STEPS, (epoch * STEPS + step) * batch)
            learns = what.trainable(clock) if learning else frozenset()
            scale = torch.tensor(10.0, dtype=torch.float64, requires_grad="scale" in learns)
            given = features(what, clock, rows[here], roles[here], learns)
            yield Moment(clock, given, scale, state)
            with torch.no_grad():
                what.remember(given, clock, state)


def roles_of(what: Objective, epoch: int, rows: np.ndarray, state: nn.Module) -> np.ndarray:
    """The objective's own; where it has none, those of another one, which shall not trouble it."""

    def score(ids: np.ndarray) -> np.ndarray:
        assert ids.min() >= 0 and ids.max() < len(rows)
        return np.cos(7.0 * rows[ids])

    clock = Clock(epoch * STEPS, epoch, STEPS, 0)
    roles = what.epoch(clock, rows, score, rng(0, "roles", epoch), state)
    if roles is None:
        return np.arange(len(rows)) % 2
    assert roles.dtype == np.int64 and roles.shape == rows.shape
    return roles


def features(what: Objective, clock: Clock, rows: np.ndarray, roles: np.ndarray, learns: frozenset[str]) -> Features:
    """float64; a text that a pair does not have is zero, as the encoder leaves it."""
    drawn_ = torch.Generator().manual_seed(digest64(0, "features", clock.step) % 2**63)
    names = [(int(row), int(role)) for row, role in zip(rows, roles, strict=True)]
    images, texts = view_names(what, *names[0])

    def embedding(part: str, lacking: str | None = None) -> Tensor:
        found = torch.randn(len(rows), WIDTH, dtype=torch.float64, generator=drawn_)
        for place, (row, role) in enumerate(names):
            if lacking is not None and not view_names(what, row, role)[1][lacking]:
                found[place] = 0
        return nn.functional.normalize(found, dim=1).requires_grad_(part in learns)

    start_images, start_texts = (
        {START + name: embedding("the start learns nothing") for name in views if what.from_start}
        for views in (images, texts)
    )
    return Features(
        images={name: embedding("image") for name in images} | start_images,
        texts={name: embedding("text", name) for name in texts} | start_texts,
        rows=torch.from_numpy(rows),
        roles=torch.from_numpy(roles),
        labels=torch.from_numpy(rows) % CLASSES,
        raw={name: embedding("image") for name in images},
    )


@functools.cache
def view_names(what: Objective, row: int, role: int) -> tuple[tuple[str, ...], dict[str, bool]]:
    """Names of the views of images, and of texts with whether this pair has them. Every fifth caption says nothing."""
    views = what.views(pair(row, "!!!" if row % 5 == 0 else None, role), rng(0, "test", row))
    return tuple(views.images), {name: text is not None for name, text in views.texts.items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Its configuration and its views


@each
def test_it_is_its_own_configuration(name):
    what = objective(name)
    assert config.from_json(Objective, config.to_json(what)) == what
    assert plugins.name_of(what) == name


@every
@pytest.mark.parametrize("role", [0, 1])
def test_views_depend_on_the_generators_alone(what, role):
    def drawn_views(seed: int) -> tuple[dict[str, bytes], dict[str, str | None]]:
        torch.default_generator.manual_seed(seed)
        views = what.views(pair(5, role=role), rng(seed, "test"))
        return {view: image.tobytes() for view, image in views.images.items()}, views.texts

    assert drawn_views(1) == drawn_views(1)


@every
@pytest.mark.parametrize("role", [0, 1])
def test_any_caption_has_views(what, role):
    for caption in CAPTIONS:
        views = what.views(pair(0, caption, role), rng(0, "test"))
        assert views.images
        assert all(image.mode == "RGB" for image in views.images.values())
        assert all(text is None or isinstance(text, str) for text in views.texts.values())


@every
def test_views_keep_their_names_and_leave_the_stored_image_alone(what):
    names = set()
    for row in range(20):
        stored = pair(row, CAPTIONS[row] if row < len(CAPTIONS) else None, row % 2)
        before = stored.image.tobytes()
        torch.default_generator.manual_seed(row)
        views = what.views(stored, rng(0, "test", row))
        names.add((tuple(views.images), tuple(views.texts)))
        assert stored.image.tobytes() == before
    assert len(names) == 1


# Its loss, in all of its epochs


@every_here
@pytest.mark.parametrize("batch", [2, 8])
def test_the_loss_is_finite_and_reaches_what_learns_in_every_epoch(what, batch):
    """A part that learns may have nothing to learn from in one step, but not in all of an epoch."""
    moved: dict[int, set[str]] = {epoch: set() for epoch in range(EPOCHS)}
    learning: dict[int, set[str]] = {epoch: set() for epoch in range(EPOCHS)}
    for moment in run_of(what, batch):
        clock, loss = moment.clock, moment.loss(what)
        assert loss.total.shape == () and torch.isfinite(loss.total), clock
        assert all(part.shape == () and torch.isfinite(part) for part in loss.parts.values()), clock
        assert all(rows.shape == (batch,) and rows.dtype == torch.int64 for rows in loss.matches.values())
        loss.total.backward()
        learns = what.trainable(clock)
        assert learns <= EVERYTHING
        learning[clock.epoch] |= learns
        for part, leaves in moment.leaves().items():
            gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
            assert all(torch.isfinite(gradient).all() for gradient in gradients), (clock, part)
            if any(gradient.any() for gradient in gradients):
                moved[clock.epoch].add(part)
    if batch > 2:
        assert moved == learning


@every_here
def test_the_loss_is_pure(what):
    """Taken twice it is the same, and leaves state and embeddings as they were."""
    for moment in run_of(what):
        state, given = copy.deepcopy(moment.state), copy.deepcopy(moment.features)
        one, two = (moment.loss(what) for _ in range(2))
        assert torch.equal(one.total, two.total)
        assert all(torch.equal(one.matches[name], two.matches[name]) for name in one.matches)
        assert same(state, moment.state)
        for before, after in ((given.images, moment.features.images), (given.texts, moment.features.texts)):
            assert all(torch.equal(before[name], after[name]) for name in before)


@every_here
def test_the_loss_of_detached_embeddings_is_the_same(what):
    for with_gradient, without in zip(run_of(what), run_of(what, learning=False), strict=True):
        assert torch.equal(with_gradient.loss(what).total.detach(), without.loss(what).total.detach())


@every_here
def test_a_pair_is_matched_with_what_came_by_before_it(what):
    seen: set[int] = set()
    for moment in run_of(what):
        for rows in moment.loss(what).matches.values():
            assert set(rows.tolist()) <= seen, moment.clock
        seen |= set(moment.features.rows.tolist())


@every_here
def test_its_state_survives_a_checkpoint_at_any_step(what):
    """Loaded into a new one, it gives the same loss and goes on to the same state."""
    for moment in run_of(what):
        other, going_on = state_of(what, 8), copy.deepcopy(moment.state)
        other.load_state_dict(moment.state.state_dict())
        assert same(other, moment.state)
        loss, again = (replace(moment, state=state).loss(what).total for state in (moment.state, other))
        assert torch.equal(loss, again)
        with torch.no_grad():
            for state in (other, going_on):
                what.remember(moment.features, moment.clock, state)
        assert same(other, going_on)


@every_here
def test_rates_are_factors_and_roles_follow_from_the_generator_alone(what):
    rows = np.arange(100, 100 + STEPS * 8)
    for epoch in range(EPOCHS):
        assert 0 <= what.rate(Clock(epoch * STEPS, epoch, STEPS, 0)) < 1000
        once, again = (roles_of(what, epoch, rows, state_of(what, 8)) for _ in range(2))
        assert np.array_equal(once, again)


def test_a_choice_that_cannot_be_had_here_says_what_it_lacks():
    for name in VARIANTS.keys() - HERE.keys():
        with pytest.raises(ValueError, match=r"on a GPU, and .* lies on cpu|install clip-antidote\["):
            state_of(VARIANTS[name], 8)


# On ranks, with a model

FEWER_STEPS, PHASES = 32, (0, 1, 5, 6)  # epochs, of which no objective has another kind


@pytest.fixture(scope="module")
def on_one_and_two_ranks(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("objectives"))
    drawn(f"{url}/pairs", FEWER_STEPS * 8, 2)
    labelled(f"{url}/labelled", FEWER_STEPS * 8)
    what = (url, NAMES, 8, 1, PHASES)
    return gradients_of_plugins(*what), on_ranks(2, gradients_of_plugins, *what)


@each
def test_two_ranks_learn_what_one_does_and_what_is_trainable_alone_moves(name, on_one_and_two_ranks):
    """Loss and every gradient, in float64 to 1e-9."""
    alone, pair_of_ranks = on_one_and_two_ranks
    moving = {"image": "visual.proj", "text": "text_projection", "scale": "logit_scale"}
    for rank in pair_of_ranks:
        assert len(rank[name]["loss"]) == 2 * len(PHASES)
        for at, step in enumerate(alone[name]["step"]):
            learning = objective(name).trainable(Clock(step, step // FEWER_STEPS, FEWER_STEPS, step * 8))
            ours, theirs = ({part: found[name][part][at] for part in LEARNED} for found in (alone, rank))
            equal(ours, theirs, f"step {step}")
            gradients = ours["gradients"]
            assert {part for part, parameter in moving.items() if parameter in gradients} == learning
            assert all(float(gradients[moving[part]].abs().max()) > 1e-6 for part in learning), step
    rows = torch.cat([rank[name]["rows"][0] for rank in pair_of_ranks])
    assert torch.equal(rows, alone[name]["rows"][0])


@each
def test_no_way_of_taking_a_step_changes_what_is_learned(name, on_one_and_two_ranks):
    """Micro-batches, logits shared out, and both, on one rank and on two: loss, every gradient, that of the scale and
    of the state among them, and what the state becomes, as one process has them in one pass."""
    alone, pair_of_ranks = on_one_and_two_ranks
    for found in (alone, *pair_of_ranks):
        for phase, epoch in enumerate(PHASES):
            at = 2 * phase + 1
            plain = {part: alone[name][part][at] for part in LEARNED}
            assert found[name]["others"][at].keys() == WAYS.keys()
            for way, other in found[name]["others"][at].items():
                equal(plain, other, f"{way}, epoch {epoch}")
                became = alone[name]["state"][phase]
                assert became.keys() == other["state"].keys()
                for part, value in became.items():
                    assert torch.allclose(value, other["state"][part], rtol=0, atol=1e-6), (way, epoch, part)


LEARNED = ("loss", "matches", "gradients")


def equal(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
    assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-9), where
    assert all(torch.equal(rows, theirs["matches"][kind]) for kind, rows in ours["matches"].items()), where
    assert ours["gradients"].keys() == theirs["gradients"].keys(), where
    for parameter, gradient in ours["gradients"].items():
        assert torch.allclose(gradient, theirs["gradients"][parameter], rtol=0, atol=1e-9), (where, parameter)
