"""CleanCLIP's loss against an independent computation: numpy in float64, rows by hand, gradient by differences."""

import numpy as np
import pytest
import torch
from torch import nn

from defense.objectives.cleanclip import CleanClip
from defense.objectives.inmodal import InModal
from defense.objectives.mmcl import Mmcl
from infra.seeding import rng
from pipeline.images import open_image
from tests.support.drawn import samples
from tests.support.learning import objective
from train.objective import Clock, Features, Pair

CLOCK = Clock(0, 0, 1, 0)
VIEWS = ("image", "augmented image", "text", "augmented text")


def embeddings(rows: int = 5, width: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    found = {name: draw.normal(size=(rows, width)) for name in VIEWS}
    return {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in found.items()}


def by_hand(given: dict[str, np.ndarray], scale: float, clip_weight: float, inmodal_weight: float) -> float:
    """Section 2.1 of the notes on the defences, row by row."""

    def ce(queries: np.ndarray, keys: np.ndarray) -> float:
        total = 0.0
        for i in range(len(queries)):
            logits = [scale * float(queries[i] @ keys[j]) for j in range(len(keys))]
            total -= logits[i] - np.log(sum(np.exp(logit) for logit in logits))
        return total / len(queries)

    image, image_view, text, text_view = (given[name] for name in VIEWS)
    clip = (ce(image, text) + ce(text, image)) / 2
    inmodal = (ce(image, image_view) + ce(text, text_view)) / 2
    return clip_weight * clip + inmodal_weight * inmodal


def ours(what: CleanClip, given: dict[str, np.ndarray], scale: float) -> tuple[float, dict[str, np.ndarray], float]:
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in given.items()}
    temperature = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    features = Features(
        images={"image": leaves["image"], "augmented": leaves["augmented image"]},
        texts={"text": leaves["text"], "augmented": leaves["augmented text"]},
        rows=torch.arange(len(given["image"])),
        roles=torch.zeros(len(given["image"]), dtype=torch.int64),
        labels=torch.full((len(given["image"]),), -1),
    )
    loss = what.loss(features, temperature, CLOCK, nn.Module())
    loss.total.backward()
    return (
        float(loss.total.detach()),
        {name: leaf.grad.numpy() for name, leaf in leaves.items()},
        float(temperature.grad),
    )


@pytest.mark.parametrize(("clip_weight", "inmodal_weight"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.5, 8.0)])
def test_cleanclip_is_the_papers_loss_in_value_and_gradient(clip_weight, inmodal_weight):
    given, scale, step = embeddings(), 7.5, 1e-6
    value, gradients, slope = ours(CleanClip(clip_weight=clip_weight, inmodal_weight=inmodal_weight), given, scale)
    assert value == pytest.approx(by_hand(given, scale, clip_weight, inmodal_weight), abs=1e-12)
    for name in VIEWS:
        for place in np.ndindex(*given[name].shape):
            sides = []
            for sign in (1, -1):
                moved = {key: entry.copy() for key, entry in given.items()}
                moved[name][place] += sign * step
                sides.append(by_hand(moved, scale, clip_weight, inmodal_weight))
            assert gradients[name][place] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)
    above, below = (by_hand(given, scale + sign * step, clip_weight, inmodal_weight) for sign in (1, -1))
    assert slope == pytest.approx((above - below) / (2 * step), abs=1e-8)


def test_the_inmodal_term_asks_in_one_direction_only():
    """Originals are the queries. With the roles of the views exchanged the value differs."""
    given = embeddings()
    exchanged = {
        name: given[{"image": "augmented image", "augmented image": "image"}.get(name, name)] for name in VIEWS
    }
    what = CleanClip(clip_weight=0.0)
    assert ours(what, given, 7.5)[0] != pytest.approx(ours(what, exchanged, 7.5)[0], abs=1e-6)


def test_augmented_views_do_not_enter_the_clip_term():
    _, gradients, _ = ours(CleanClip(inmodal_weight=0.0), embeddings(), 7.5)
    assert np.abs(gradients["augmented image"]).max() == np.abs(gradients["augmented text"]).max() == 0


def test_mmcl_is_cleanclip_without_its_inmodal_term():
    given = embeddings()
    features = Features(
        images={"image": torch.tensor(given["image"])},
        texts={"text": torch.tensor(given["text"])},
        rows=torch.arange(5),
        roles=torch.zeros(5, dtype=torch.int64),
        labels=torch.full((5,), -1),
    )
    scale = torch.tensor(7.5, dtype=torch.float64)
    alone = float(Mmcl().loss(features, scale, CLOCK, nn.Module()).total)
    assert alone == pytest.approx(ours(CleanClip(inmodal_weight=0.0), given, 7.5)[0], abs=1e-12)
    assert alone == pytest.approx(by_hand(given, 7.5, 1.0, 0.0), abs=1e-12)


def test_inmodal_is_cleanclip_without_its_clip_term():
    given = embeddings()
    alone, without = ours(InModal(), given, 7.5), ours(CleanClip(clip_weight=0.0), given, 7.5)
    assert alone[0] == without[0] == pytest.approx(by_hand(given, 7.5, 0.0, 1.0), abs=1e-12)
    assert all(np.array_equal(alone[1][name], without[1][name]) for name in VIEWS)
    assert alone[2] == without[2]
    weighted = ours(InModal(inmodal_weight=3.0), given, 7.5)
    assert weighted[0] == pytest.approx(3 * alone[0], abs=1e-12)


def test_inmodal_has_cleanclips_views():
    pair = Pair(3, open_image(samples(1, first=3)[0].image), "an old red car stands beside a small wooden house")
    told = []
    for what in (InModal(), CleanClip()):
        torch.default_generator.manual_seed(0)
        views = what.views(pair, rng(0, "views", 1, 3))
        told.append(({name: image.tobytes() for name, image in views.images.items()}, views.texts))
    assert told[0] == told[1]


def test_parts_add_up_to_the_total():
    given = embeddings()
    what = CleanClip(clip_weight=0.5, inmodal_weight=2.0)
    features = Features(
        images={"image": torch.tensor(given["image"]), "augmented": torch.tensor(given["augmented image"])},
        texts={"text": torch.tensor(given["text"]), "augmented": torch.tensor(given["augmented text"])},
        rows=torch.arange(5),
        roles=torch.zeros(5, dtype=torch.int64),
        labels=torch.full((5,), -1),
    )
    loss = what.loss(features, torch.tensor(3.0, dtype=torch.float64), CLOCK, nn.Module())
    assert float(loss.total) == pytest.approx(0.5 * float(loss.parts["clip"]) + 2 * float(loss.parts["inmodal"]))


def test_cleanclip_changes_image_and_caption_anew_each_time():
    sample = samples(1, first=3)[0]
    caption = "an old red car stands beside a small wooden house near the river"
    pair = Pair(3, open_image(sample.image), caption)
    pictures, captions = set(), set()
    for epoch in range(12):
        torch.default_generator.manual_seed(epoch)
        views = objective("cleanclip").views(pair, rng(0, "views", epoch, 3))
        assert views.images["image"] is pair.image
        assert views.texts["text"] == caption
        pictures.add(views.images["augmented"].tobytes())
        captions.add(views.texts["augmented"])
    assert len(pictures) > 4
    assert len(captions) > 4


def test_a_frozen_caption_view_is_one_for_the_whole_run_and_another_for_each_seed_and_row():
    """As the authors' code draws it; the image's view is fresh in either case."""
    image, caption = open_image(samples(1, first=3)[0].image), "an old red car stands beside a small wooden house"

    def views(kept: str, epoch: int, row: int = 3, seed: int = 0) -> tuple[str | None, bytes]:
        torch.default_generator.manual_seed(epoch)
        pair = Pair(row, image, caption, seed=seed)
        drawn = CleanClip(caption_views=kept).views(pair, rng(seed, "views", epoch, row))
        assert drawn.texts["text"] == caption
        return drawn.texts["augmented"], drawn.images["augmented"].tobytes()

    epochs = range(12)
    assert len({views("frozen", epoch)[0] for epoch in epochs}) == 1
    assert len({views("fresh", epoch)[0] for epoch in epochs}) > 4
    assert len({views("frozen", epoch)[1] for epoch in epochs}) > 4
    assert len({views("frozen", 0, row=row)[0] for row in range(12)}) > 4
    assert len({views("frozen", 0, seed=seed)[0] for seed in range(12)}) > 4


@pytest.mark.parametrize("weights", [{"inmodal_weight": -1.0}, {"inmodal_weight": 0.0, "clip_weight": 0.0}])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="inmodal_weight and clip_weight"):
        CleanClip(**weights)
