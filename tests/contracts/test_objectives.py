"""What every objective must do; a new file in an objectives folder is tested here by itself."""

import pytest
import torch
from drawn import drawn, samples
from learning import gradients_of_plugins, objective
from several_ranks import on_ranks
from torch import nn

from infra import config, plugins
from infra.seeding import rng
from pipeline.images import open_image
from train.objective import EVERYTHING, Clock, Features, Objective, Pair, Setting

NAMES = plugins.names(Objective.FOLDERS)
each = pytest.mark.parametrize("name", NAMES)
CLOCK = Clock(step=3, epoch=0, steps_per_epoch=10, samples=24)
ROWS = 8
SETTING = Setting(width=6, samples=64)


def pair(row: int = 0, caption: str | None = None) -> Pair:
    sample = samples(1, first=row)[0]
    return Pair(row, open_image(sample.image), sample.caption if caption is None else caption)


def features(what: Objective, dtype: torch.dtype = torch.float64) -> Features:
    """Random embeddings under the names of the objective's own views."""
    torch.manual_seed(0)
    views = what.views(pair(), rng(0, "test"))

    def embedding() -> torch.Tensor:
        return nn.functional.normalize(torch.randn(ROWS, 6, dtype=dtype), dim=1).requires_grad_()

    return Features(
        images={name: embedding() for name in views.images},
        texts={name: embedding() for name in views.texts},
        rows=torch.arange(ROWS),
        roles=torch.zeros(ROWS, dtype=torch.int64),
        labels=torch.full((ROWS,), -1),
        raw={name: embedding() for name in views.images},
    )


@each
def test_it_is_its_own_configuration(name):
    what = objective(name)
    assert config.from_json(Objective, config.to_json(what)) == what
    assert plugins.name_of(what) == name


@each
def test_views_depend_on_the_generators_alone(name):
    what = objective(name)

    def drawn_views(seed: int) -> tuple[dict[str, bytes], dict[str, str]]:
        torch.default_generator.manual_seed(seed)
        views = what.views(pair(5), rng(seed, "test"))
        return {view: image.tobytes() for view, image in views.images.items()}, views.texts

    assert drawn_views(1) == drawn_views(1)


@each
@pytest.mark.parametrize("caption", ["", "!!!", "42", "a", "\U0001f34c", "word " * 200])
def test_any_caption_has_views(name, caption):
    views = objective(name).views(pair(0, caption), rng(0, "test"))
    assert views.images
    assert all(image.mode == "RGB" for image in views.images.values())
    assert all(text is None or isinstance(text, str) for text in views.texts.values())


@each
def test_views_keep_their_names_and_leave_the_stored_picture_alone(name):
    what, names = objective(name), set()
    for row in range(20):
        stored = pair(row)
        before = stored.image.tobytes()
        torch.default_generator.manual_seed(row)
        views = what.views(stored, rng(0, "test", row))
        names.add((tuple(views.images), tuple(views.texts)))
        assert stored.image.tobytes() == before
    assert len(names) == 1


@each
def test_the_loss_is_finite_and_reaches_both_towers_and_the_scale(name):
    what = objective(name)
    given, scale = features(what), torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    loss = what.loss(given, scale, CLOCK, what.state(SETTING))
    loss.total.backward()
    assert loss.total.ndim == 0
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(part) for part in loss.parts.values())
    learning = what.trainable(CLOCK)
    assert learning <= EVERYTHING
    for tower, views in (("image", given.images), ("text", given.texts)):
        moved = sum(float(view.grad.abs().sum()) for view in views.values() if view.grad is not None)
        assert (moved > 0) == (tower in learning)
    assert (float(scale.grad.abs()) > 0) == ("scale" in learning)


@each
def test_the_loss_is_pure(name):
    what = objective(name)
    given, state = features(what), what.state(SETTING)
    scale = torch.tensor(5.0, dtype=torch.float64)
    values = {float(what.loss(given, scale, CLOCK, state).total.detach()) for _ in range(2)}
    assert len(values) == 1


@each
def test_its_state_survives_a_checkpoint(name):
    what = objective(name)
    state, other = what.state(SETTING), what.state(SETTING)
    other.load_state_dict(state.state_dict())
    assert all(
        torch.equal(one, two) for one, two in zip(state.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def on_one_and_two_ranks(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("objectives") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTIDOTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        drawn(url, 64, 2)
        return gradients_of_plugins(url, NAMES, 16), on_ranks(2, gradients_of_plugins, url, NAMES, 16)


@each
def test_two_ranks_learn_what_one_does(name, on_one_and_two_ranks):
    """Loss and every gradient, logit scale included, to 1e-9 in float64."""
    alone, pair_of_ranks = on_one_and_two_ranks
    for rank in pair_of_ranks:
        assert rank[name]["loss"] == pytest.approx(alone[name]["loss"], abs=1e-9)
        for ours, theirs in zip(alone[name]["gradients"], rank[name]["gradients"], strict=True):
            assert ours.keys() == theirs.keys()
            assert {"logit_scale", "visual.proj", "text_projection"} <= ours.keys()
            for parameter, gradient in ours.items():
                assert torch.allclose(gradient, theirs[parameter], rtol=0, atol=1e-9), parameter
            assert float(ours["logit_scale"].abs()) > 1e-6
            assert float(ours["text_projection"].abs().max()) > 1e-6
    rows = torch.cat([rank[name]["rows"][0] for rank in pair_of_ranks])
    assert torch.equal(rows, alone[name]["rows"][0])
