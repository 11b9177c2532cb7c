"""TA-Cleaner: its loss against numpy in float64, written out row by row, who is chosen, and their views."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from defense.language.subcaptions import OPENING
from defense.objectives.cleanclip import CleanClip
from defense.objectives.tacleaner import CHOSEN, TaCleaner, subcaption_loss
from infra.seeding import rng
from pipeline.images import open_image
from tests.support.drawn import samples
from train.objective import Clock, Features, Loss, Pair, Views

CLOCK = Clock(0, 0, 1, 0)
CAPTION = "an old red car stands beside a small wooden house near the river"
Arrays = dict[str, np.ndarray]


def unit(rows: int, seed: int, width: int = 5) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def by_hand(given: Arrays, negated: list[bool], t_p: float, t_n: float) -> float:
    """images, positives, negatives: (M, D). No matrix product, no softmax: one sum of exponentials at a time."""
    images, positives, negatives = (given[name] for name in ("images", "positives", "negatives"))
    many, total = range(len(images)), 0.0
    for i in many:
        own = np.exp(images[i] @ positives[i] / t_p)
        picture = sum(np.exp(images[i] @ positives[j] / t_p) for j in many)
        picture += sum(np.exp(images[i] @ negatives[k] / t_n) for k in many if negated[k])
        caption = sum(np.exp(positives[i] @ images[j] / t_p) for j in many)
        caption += sum(np.exp(negatives[i] @ images[k] / t_n) for k in many if negated[i])
        total -= (np.log(own / picture) + np.log(own / caption)) / 2
    return total / len(images)


def slopes(value: Callable[[Arrays], float], given: Arrays, step: float = 1e-6) -> Arrays:
    """Central differences."""
    found = {name: np.empty_like(array) for name, array in given.items()}
    for name, array in given.items():
        for place in np.ndindex(*array.shape):
            sides = []
            for sign in (1, -1):
                moved = given | {name: array.copy()}
                moved[name][place] += sign * step
                sides.append(value(moved))
            found[name][place] = (sides[0] - sides[1]) / (2 * step)
    return found


def leaves(given: Arrays, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array, dtype=dtype, requires_grad=True) for name, array in given.items()}


@pytest.mark.parametrize(
    "negated", [[True], [False], [True, True], [False, True], [True, False, True, True, False, True, True]]
)
@pytest.mark.parametrize(("t_p", "t_n"), [(0.5, 0.5), (0.2, 0.7)])
def test_the_loss_of_sub_captions_is_the_formula_in_value_and_gradient(negated, t_p, t_n):
    given = {name: unit(len(negated), seed) for seed, name in enumerate(("images", "positives", "negatives"))}
    given["negatives"][np.logical_not(negated)] = 0  # as the encoder leaves what is not there
    ours = leaves(given)
    loss = subcaption_loss(*ours.values(), torch.tensor(negated), t_p, t_n)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(by_hand(given, negated, t_p, t_n), abs=1e-12)
    expected = slopes(lambda moved: by_hand(moved, negated, t_p, t_n), given)
    for name, leaf in ours.items():
        assert np.allclose(leaf.grad.numpy(), expected[name], rtol=0, atol=1e-8), name
    assert np.all(ours["negatives"].grad.numpy()[np.logical_not(negated)] == 0)


def test_one_pair_with_nothing_to_tell_it_from_teaches_nothing():
    given = leaves({name: unit(1, seed) for seed, name in enumerate(("images", "positives", "negatives"))})
    loss = subcaption_loss(*given.values(), torch.tensor([False]), 0.07, 0.07)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(leaf.grad.abs().max()) == 0 for leaf in given.values())


@pytest.mark.parametrize("t_p", [1e-20, 1e-4, 1.0, 1e20])
@pytest.mark.parametrize("t_n", [1e-20, 1.0, 1e20])
def test_no_temperature_makes_the_loss_or_its_gradient_infinite(t_p, t_n):
    given = leaves({name: unit(6, seed) for seed, name in enumerate(("i", "p", "n"))}, torch.float32)
    loss = subcaption_loss(*given.values(), torch.tensor([True] * 5 + [False]), t_p, t_n)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(leaf.grad).all() for leaf in given.values())


# The whole objective

VIEWS = ("image", "augmented image", "text", "augmented text", "positive", "negative")


def features(given: dict[str, torch.Tensor]) -> Features:
    num_rows = len(given["image"])
    return Features(
        images={"image": given["image"], "augmented": given["augmented image"]},
        texts={
            "text": given["text"], "augmented": given["augmented text"],
            "positive": given["positive"], "negative": given["negative"],
        },
        rows=torch.arange(num_rows),
        roles=torch.zeros(num_rows, dtype=torch.int64),
        labels=torch.full((num_rows,), -1),
    )  # fmt: skip


def embeddings(chosen: list[bool], negated: list[bool]) -> Arrays:
    given = {name: unit(len(chosen), seed) for seed, name in enumerate(VIEWS)}
    given["positive"][np.logical_not(chosen)] = 0
    given["negative"][np.logical_not(negated)] = 0
    return given


def taken(what: CleanClip, given: dict[str, torch.Tensor], scale: float = 7.5) -> tuple[Loss, torch.Tensor]:
    """The loss, and the gradient of the scale; those of the embeddings are in `given`."""
    temperature = torch.tensor(scale, dtype=given["image"].dtype, requires_grad=True)
    loss = what.loss(features(given), temperature, CLOCK, torch.nn.Module())
    loss.total.backward()
    return loss, temperature.grad


def cleanclip_by_hand(given: Arrays, scale: float) -> float:
    def ce(queries: np.ndarray, keys: np.ndarray) -> float:
        logits = scale * queries @ keys.T
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)))

    clip = (ce(given["image"], given["text"]) + ce(given["text"], given["image"])) / 2
    return clip + (ce(given["image"], given["augmented image"]) + ce(given["text"], given["augmented text"])) / 2


def test_the_objective_is_cleanclip_and_the_weighted_sub_captions_of_the_chosen_in_value_and_gradient():
    chosen, negated = [True, False, True, True, False], [True, False, False, True, False]
    given, t_p, t_n, weight = embeddings(chosen, negated), 0.3, 0.6, 2.5

    def expected(moved: Arrays) -> float:
        picked = dict(zip(("images", "positives", "negatives"), ("image", "positive", "negative"), strict=True))
        parts = {name: moved[view][chosen] for name, view in picked.items()}
        return cleanclip_by_hand(moved, 7.5) + weight * by_hand(parts, [True, False, True], t_p, t_n)

    ours = leaves(given)
    what = TaCleaner(subcaption_weight=weight, positive_temperature=t_p, negative_temperature=t_n)
    loss, _ = taken(what, ours)
    assert float(loss.total.detach()) == pytest.approx(expected(given), abs=1e-12)
    assert float(loss.parts["chosen"]) == pytest.approx(0.6)
    total = loss.parts["clip"] + loss.parts["inmodal"] + weight * loss.parts["subcaption"]
    assert float(total.detach()) == pytest.approx(expected(given), abs=1e-12)
    free = {name: array for name, array in given.items() if name not in ("positive", "negative")}
    numeric = slopes(lambda moved: expected(given | moved), free)
    for name, slope in numeric.items():
        assert np.allclose(ours[name].grad.numpy(), slope, rtol=0, atol=1e-8), name
    for name, there in (("positive", chosen), ("negative", negated)):
        slope = slopes(lambda moved: expected(given | moved), {name: given[name]})[name]
        assert np.allclose(ours[name].grad.numpy()[there], slope[there], rtol=0, atol=1e-8)
        assert np.abs(slope[there]).max() > 1e-3
        assert np.all(ours[name].grad.numpy()[np.logical_not(there)] == 0)


@pytest.mark.parametrize(("weight", "chosen"), [(1.0, [False] * 5), (0.0, [True, True, False, True, False])])
def test_nobody_chosen_or_no_weight_is_cleanclip_to_the_bit(weight, chosen):
    given = embeddings(chosen, chosen)
    theirs, ours = leaves(given, torch.float32), leaves(given, torch.float32)
    plain, plain_slope = taken(CleanClip(), theirs)
    loss, slope = taken(TaCleaner(subcaption_weight=weight), ours)
    assert torch.equal(loss.total, plain.total)
    assert torch.equal(slope, plain_slope)
    assert all(torch.equal(ours[name].grad, theirs[name].grad) for name in VIEWS[:4])
    assert all(leaf.grad is None or not leaf.grad.any() for leaf in (ours["positive"], ours["negative"]))


# Who is chosen


def never(ids: np.ndarray) -> np.ndarray:
    raise AssertionError("TA-Cleaner scores nobody")


def roles(share: float, rows: np.ndarray, epoch: int, seed: int = 0) -> np.ndarray:
    what, clock = TaCleaner(subcaption_share=share), Clock(epoch * 10, epoch, 10, epoch * 80)
    return what.epoch(clock, rows, never, rng(seed, "roles", epoch), torch.nn.Module())


@pytest.mark.parametrize(("share", "count", "wanted"), [(0.1, 95, 10), (0.0, 50, 0), (1.0, 50, 50), (0.01, 1000, 10)])
def test_the_share_of_the_dataset_is_chosen_and_nobody_else_has_a_role(share, count, wanted):
    found = roles(share, np.arange(count), 3)
    assert found.dtype == np.int64
    assert sorted(Counter(found.tolist()).items()) == sorted(
        (role, many) for role, many in ((0, count - wanted), (CHOSEN, wanted)) if many
    )


def test_who_is_chosen_follows_from_seed_epoch_and_row_alone():
    rows = np.random.default_rng(0).permutation(10_000)[:1000]
    found = roles(0.2, rows, 4)
    assert np.array_equal(found, roles(0.2, rows, 4))
    turned = np.random.default_rng(1).permutation(1000)  # other shards, another order
    assert np.array_equal(found[turned], roles(0.2, rows[turned], 4))
    for other in (roles(0.2, rows, 5), roles(0.2, rows, 4, seed=1)):
        both = int((found & other).sum())
        assert 15 < both < 65  # 40 of 200 by chance, sigma 5


def test_everyone_is_chosen_equally_often():
    counts = sum(roles(0.1, np.arange(500), epoch) for epoch in range(400))
    assert counts.sum() == 400 * 50
    sigma = (400 * 0.1 * 0.9) ** 0.5
    assert np.abs(counts - 40).max() < 5 * sigma
    assert 0.8 < counts.std() / sigma < 1.2


# Their views


def pair(caption: str, role: int, row: int = 0) -> Pair:
    return Pair(row, open_image(samples(1)[0].image), caption, role)


def views(what: CleanClip, caption: str, role: int, seed: int = 0) -> Views:
    torch.default_generator.manual_seed(seed)
    return what.views(pair(caption, role), rng(seed, "views"))


def test_cleanclips_views_are_the_same_bits_whether_a_pair_is_chosen_or_not():
    for seed in range(20):
        plain, ordinary, chosen = (
            views(what, CAPTION, role, seed) for what, role in ((CleanClip(), 0), (TaCleaner(), 0), (TaCleaner(), 1))
        )
        for each in (ordinary, chosen):
            assert {name: image.tobytes() for name, image in each.images.items()} == {
                name: image.tobytes() for name, image in plain.images.items()
            }
            assert {name: each.texts[name] for name in plain.texts} == plain.texts
        assert ordinary.texts["positive"] is ordinary.texts["negative"] is None


def test_a_chosen_pair_has_a_true_and_a_false_sub_caption_and_others_in_other_epochs():
    found = {
        (each["positive"], each["negative"]) for each in (views(TaCleaner(), CAPTION, 1, s).texts for s in range(40))
    }
    assert len(found) > 10
    for positive, negative in found:
        without = positive.removeprefix(OPENING + " ")
        assert set(without.split()) <= set(CAPTION.split())
        changed = set(negative.removeprefix(OPENING + " ").split()) - set(CAPTION.split())
        assert 1 <= len(changed) <= 3  # one word, or one preposition ("far from"); an article may follow it


def test_a_caption_without_a_negative_has_a_positive_alone():
    texts = views(TaCleaner(), "A woman is not wearing a coat .", 1).texts
    assert texts["positive"] == "a woman is not wearing a coat"
    assert texts["negative"] is None


def test_no_caption_raises_and_one_that_says_nothing_has_neither():
    for caption in ("", " ", "\U0001f34c", "\ud800", "2024!", "\u8d64\u3044", "ein Hund", "of the and", "it runs"):
        texts = views(TaCleaner(), caption, 1).texts
        assert texts["text"] == caption
        assert texts["positive"] is texts["negative"] is None, caption
    for caption in ("dog " * 200, "x" * 10_000, "a-b-c 's ' - dog", "NIKE | SHOES"):
        assert views(TaCleaner(), caption, 1).texts["text"] == caption


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"subcaption_share": 1.5}, "subcaption_share is a share between 0 and 1, not 1.5"),
        ({"subcaption_share": -0.1}, "subcaption_share is a share"),
        ({"subcaption_weight": -1.0}, "subcaption_weight cannot be negative, it is -1.0"),
        ({"positive_temperature": 0.0}, "positive_temperature must be above 0, not 0.0"),
        ({"negative_temperature": float("nan")}, "negative_temperature must be above 0, not nan"),
        ({"inmodal_weight": -1.0}, "inmodal_weight and clip_weight cannot be negative"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        TaCleaner(**changed)


def test_a_parser_that_is_missing_is_refused_before_anything_starts():
    with pytest.raises(ValueError, match="no spaCy pipeline 'en_no_such' is installed"):
        TaCleaner(parser="en_no_such").ready()
