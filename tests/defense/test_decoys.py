"""What decoys do to an image, kind by kind; the loss against an independent computation, and a run with it."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from defense.changing import decoys
from defense.changing.decoys import KINDS, decoy
from defense.objectives.decoys import Decoys
from infra.seeding import rng
from tests.support.drawn import drawn
from train import checkpoint, model
from train.objective import START, Clock, Features, Pair
from train.objectives.clip import Clip
from train.presets import Recipe
from train.training import Finetuning, Pretraining

CLOCK = Clock(0, 0, 1, 0)
SIZES = [(1, 1), (1, 40), (3, 2), (32, 32), (64, 48), (40, 224)]


def scene(height: int, width: int) -> np.ndarray:
    """Smooth, and nowhere quite black or white: float64 (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([127 + 90 * np.sin(6 * x + 2 * y), 127 + 90 * np.cos(5 * y), 40 + 150 * x], axis=2)


def draws(kind: str, image: np.ndarray, number: int = 60) -> list[np.ndarray]:
    return [KINDS[kind](image, rng(0, "test", kind, each)) for each in range(number)]


# ---------------------------------------------------------------------- the kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_kind_keeps_size_and_range_leaves_its_image_alone_and_follows_from_the_generator(kind, size):
    image = scene(*size)
    before, seen = image.copy(), set()
    for number in range(20):
        made = KINDS[kind](image, rng(number, "test"))
        assert made.shape == image.shape and made.dtype == np.float64
        assert made.min() >= -1e-9 and made.max() <= 255 + 1e-9
        assert np.array_equal(made, KINDS[kind](image, rng(number, "test")))
        seen.add(made.tobytes())
    assert np.array_equal(image, before)
    assert len(seen) == 20 or min(size) < 4


def test_a_patch_is_a_square_of_8_to_40_percent_of_the_short_side_and_lies_anywhere():
    image, sides, middles = np.full((100, 150, 3), -1.0), [], []
    for made in draws("patch", image, 300):
        rows, columns = ((made >= 0).any(axis=2).any(axis=axis).nonzero()[0] for axis in (1, 0))
        assert np.ptp(rows) == np.ptp(columns)
        assert (made[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] >= 0).all(), "all of it is covered"
        sides.append(len(rows))
        middles.append((rows.mean() / 100, columns.mean() / 150))
    assert 8 <= min(sides) < 11 and 37 < max(sides) <= 40
    assert all(min(place) < 0.12 and max(place) > 0.88 for place in zip(*middles, strict=True))


def test_a_blend_mixes_one_pattern_of_a_weight_up_to_three_tenths_into_any_image():
    """The same draws on two images: what is left of their difference is 1 - weight."""
    one, other, weights = scene(32, 32), scene(32, 32)[::-1] * 0.5 + 20, []
    for first, second in zip(draws("blend", one), draws("blend", other), strict=True):
        kept = (first - second) / np.where(one == other, np.nan, one - other)
        weights.append(1 - np.nanmean(kept))
        assert np.nanmax(kept) - np.nanmin(kept) < 1e-6
        found = (first - (1 - weights[-1]) * one) / weights[-1]
        assert found.min() > -1e-6 and found.max() < 255 + 1e-6, "the pattern is made of colours"
    assert 0 <= min(weights) < 0.03 and 0.27 < max(weights) <= 0.3


def test_a_warp_takes_each_pixel_from_near_by_smoothly_or_each_by_itself():
    """On an image whose colours are the places of its pixels: how far they went, and how alike neighbours went."""
    side = 64
    places = np.zeros((side, side, 3))
    places[..., 0], places[..., 1] = np.mgrid[:side, :side]
    means, alike = [], []
    for made in draws("warp", places, 200):
        went = (made - places)[8:-8, 8:-8, :2]  # away from the edge, to which places outside are brought
        means.append(np.abs(went).mean())
        alike.append(np.corrcoef(went[:, :-1].ravel(), went[:, 1:].ravel())[0, 1])
    assert max(means) < 1.2 * decoys.BENT * side, "two control points can be larger than their expectation"
    assert min(means) < 0.1 and max(means) > 0.5 * decoys.BENT * side
    assert min(alike) < 0.3 and max(alike) > 0.95
    by_itself = [mean for mean, likeness in zip(means, alike, strict=True) if likeness < 0.3]
    assert max(by_itself) < 2.2, "white jitter of more than about the grain would leave nothing of the image"


def test_bilinear_against_torch():
    values, draw = scene(9, 13), np.random.default_rng(0)
    y, x = draw.uniform(-3, 12, (7, 5)), draw.uniform(-3, 16, (7, 5))
    grid = torch.tensor(np.stack([2 * x / 12 - 1, 2 * y / 8 - 1], axis=2))[None]
    theirs = torch.nn.functional.grid_sample(
        torch.tensor(values.transpose(2, 0, 1))[None], grid, padding_mode="border", align_corners=True
    )
    assert np.allclose(decoys.bilinear(values, y, x), theirs[0].numpy().transpose(1, 2, 0), atol=1e-9)


@pytest.mark.parametrize("name", ["noise", "board", "wave", "clouds", "flat"])
def test_a_pattern_is_what_it_is_called(name):
    made = [getattr(decoys, name)(24, 36, rng(each, "test")) for each in range(40)]
    assert all(each.shape == (24, 36, 3) and each.min() >= 0 and each.max() <= 255 for each in made)
    colours = [len(np.unique(each.reshape(-1, 3), axis=0)) for each in made]
    match name:
        case "flat":
            assert set(colours) == {1}
        case "board":
            assert set(colours) <= {1, 2}
            along = [(np.ptp(each, axis=0).max() > 0, np.ptp(each, axis=1).max() > 0) for each in made]
            assert {(True, True), (True, False), (False, True)} <= set(along), "checks, and stripes both ways"
        case "noise":
            assert max(colours) == 24 * 36 and min(colours) < 80, "cells of one pixel, and of several"
        case "wave" | "clouds":
            steps = [np.abs(np.diff(each, axis=1)).max() for each in made]
            assert min(steps) < 30 and max(steps) > 60, "smooth, and less so"


def test_a_decoy_is_changed_as_often_as_asked_and_all_kinds_come_alike(monkeypatch):
    asked: list[str] = []
    for kind in KINDS:
        monkeypatch.setitem(decoys.KINDS, kind, lambda image, _, kind=kind: asked.append(kind) or image + 1)
    image = Image.new("RGB", (4, 4), (10, 10, 10))
    for changes in (1, 2, 5):
        before = len(asked)
        for number in range(300):
            made = decoy(image, rng(number, "test"), tuple(KINDS), changes)
            assert made.getpixel((0, 0)) == (10 + changes,) * 3
        assert len(asked) - before == 300 * changes
    share = 1 / len(KINDS)
    for kind in KINDS:
        assert abs(asked.count(kind) - share * len(asked)) < 5 * math.sqrt(len(asked) * share * (1 - share))


def test_a_decoy_is_rounded_and_cut_to_bytes(monkeypatch):
    monkeypatch.setitem(decoys.KINDS, "patch", lambda image, _: image * [1.26, 3.0, -1.0])
    assert decoy(Image.new("RGB", (1, 1), (10, 100, 9)), rng(0, "test"), ["patch"], 1).getpixel((0, 0)) == (13, 255, 0)


# ---------------------------------------------------------------------- the objective


NAMES = ("image", "decoy", "text", "start")


def embeddings(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    found = {name: draw.normal(size=(5, 4)) for name in NAMES}
    return {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in found.items()}


def by_hand(given: dict[str, np.ndarray], scale: float, weight: float) -> float:
    def ce(queries: np.ndarray, keys: np.ndarray) -> float:
        total = 0.0
        for i in range(len(queries)):
            logits = [scale * float(queries[i] @ key) for key in keys]
            total -= logits[i] - math.log(sum(math.exp(logit) for logit in logits))
        return total / len(queries)

    total = 0.0
    for view in ("image", "decoy"):
        apart = sum(float(((a - b) ** 2).sum()) for a, b in zip(given[view], given["start"], strict=True)) / 5
        total += (ce(given[view], given["text"]) + ce(given["text"], given[view])) / 4 + weight * apart / 2
    return total


def ours(what: Decoys, given: dict[str, np.ndarray], scale: float) -> tuple[float, dict[str, np.ndarray]]:
    leaves = {name: torch.tensor(value, requires_grad=name != "start") for name, value in given.items()}
    elsewhere = torch.full((5, 4), torch.nan, dtype=torch.float64)  # what the old model says of decoys is not asked
    features = Features(
        images={"image": leaves["image"], "decoy": leaves["decoy"], START + "image": leaves["start"],
                START + "decoy": elsewhere},
        texts={"text": leaves["text"], START + "text": elsewhere},
        rows=torch.arange(5),
        roles=torch.zeros(5, dtype=torch.int64),
        labels=torch.full((5,), -1),
    )  # fmt: skip
    loss = what.loss(features, torch.tensor(scale, dtype=torch.float64), CLOCK, nn.Module())
    loss.total.backward()
    return float(loss.total.detach()), {name: leaves[name].grad.numpy() for name in ("image", "decoy", "text")}


@pytest.mark.parametrize("weight", [0.0, 1.0, 10.0])
def test_the_loss_is_what_its_docstring_says_in_value_and_gradient(weight):
    given, scale, step = embeddings(), 7.5, 1e-6
    value, gradients = ours(Decoys(hold_weight=weight), given, scale)
    assert value == pytest.approx(by_hand(given, scale, weight), abs=1e-12)
    for name, gradient in gradients.items():
        for place in np.ndindex(*given[name].shape):
            sides = []
            for sign in (1, -1):
                nudged = {key: entry.copy() for key, entry in given.items()}
                nudged[name][place] += sign * step
                sides.append(by_hand(nudged, scale, weight))
            assert gradient[place] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"hold_weight": -1.0}, "cannot be negative, it is -1"), ({"changes": 0}, "at least 1, not 0")],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Decoys(**wrong)


def test_the_image_is_shown_as_it_is_beside_a_decoy_that_is_drawn_anew():
    stored = Image.fromarray(scene(32, 32).astype(np.uint8))
    pair, seen = Pair(3, stored, "a red car"), set()
    for epoch in range(6):
        views = Decoys().views(pair, rng(0, "views", epoch, 3))
        assert views.images["image"] is stored and views.texts == {"text": "a red car"}
        assert views.images["decoy"].size == stored.size
        seen.add(views.images["decoy"].tobytes())
    assert len(seen) == 6 and stored.tobytes() not in seen


@pytest.mark.parametrize("left_out", KINDS)
def test_a_kind_can_be_left_out(left_out, monkeypatch):
    asked = set()
    for kind in KINDS:
        monkeypatch.setitem(decoys.KINDS, kind, lambda image, _, kind=kind: asked.add(kind) or image)
    pair = Pair(3, Image.new("RGB", (8, 8)), "a red car")
    for epoch in range(60):
        Decoys(without=left_out).views(pair, rng(0, "views", epoch, 3))
    assert asked == set(KINDS) - {left_out}


RECIPE = Recipe(batch=16, epochs=2, lr=5e-3, warmup_steps=1)


def test_a_run_is_held_to_what_images_meant_to_the_model_it_began_with(tmp_path):
    """And without the weight it moves further away: both measured in the log."""
    drawn(str(tmp_path / "pairs"), 64, 2)
    common = {"dataset": str(tmp_path / "pairs"), "recipe": RECIPE, "workers": 0}
    Pretraining(objective=Clip(), out=str(tmp_path / "run"), model="tiny-vit", **common).run()
    measured = {}
    for name, weight in (("held", 10.0), ("free", 0.0)):
        out = str(tmp_path / name)
        what = Decoys(hold_weight=weight)
        Finetuning(objective=what, pretrained=str(tmp_path / "run"), out=out, **common).run()
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        measured[name] = [float(line.split('"images_moved": ')[1].split(",")[0].rstrip("}")) for line in lines]
    assert measured["held"][0] < 1e-9, "at the first step it is that model"
    assert measured["held"][-1] < 0.5 * measured["free"][-1]
    held, before = (
        model.load_weights(checkpoint.find(str(tmp_path / run)).read(checkpoint.MODEL)) for run in ("held", "run")
    )
    assert not torch.equal(held["logit_scale"], before["logit_scale"]), "the scale learns"
