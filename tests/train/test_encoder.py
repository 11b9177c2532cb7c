"""Texts that some pairs do not have: the others are encoded as if they were alone, and the gaps are zero."""

import pytest
import torch
from torch import Tensor

from tests.support.drawn import drawn
from tests.support.learning import ARCHITECTURE, Sometimes, gradients, sometimes, stream
from tests.support.several_ranks import on_ranks
from train import model
from train.encoder import Encoder
from train.objective import EVERYTHING
from train.objectives.clip import Clip

CAPTIONS = ["a red car", "a blue house near a green fish", "cup", "a fish", ""]
THERE = [True, False, True, True, False]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("encoder") / "data")
    drawn(url, 48, 2)
    return url


def made(dtype: torch.dtype = torch.float64, autocast: torch.dtype | None = None) -> Encoder:
    architecture = model.architecture(ARCHITECTURE)
    return Encoder(model.create(architecture, 0).to(dtype), *model.mean_and_std(architecture), autocast=autocast)


def given(there: list[bool]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Images; texts that are all there; the same with gaps in the second view; which of these are present."""
    tokens = model.tokenizer(model.architecture(ARCHITECTURE))(CAPTIONS)
    pictures = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    gaps = torch.where(torch.tensor(there)[:, None], tokens.flip(0), -1)
    present = torch.tensor([True] * 5 + there).nonzero()[:, 0]
    whole = {"text": tokens, "extra": tokens.flip(0)}
    return {"image": pictures}, whole, {"text": tokens, "extra": gaps}, present


@each_dtype
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("there", [THERE, [False] * 5, [True] * 5])
def test_a_text_is_encoded_as_in_a_batch_without_gaps_and_a_gap_is_zero(dtype, training, there):
    encoder = made(dtype).train(training)
    images, whole, gaps, present = given(there)
    (pictures, expected, scale), (same, found, same_scale) = (
        encoder(images, whole),
        encoder(images, gaps, present=present),
    )
    assert torch.allclose(found["text"], expected["text"], rtol=0, atol=TOLERANCE[dtype])
    assert torch.allclose(found["extra"][there], expected["extra"][there], rtol=0, atol=TOLERANCE[dtype])
    assert not found["extra"][torch.tensor(there).logical_not()].any()
    assert found["extra"].dtype == dtype and found["extra"].shape == (5, 16)
    assert torch.equal(pictures["image"], same["image"]) and torch.equal(scale, same_scale)


@each_dtype
def test_no_gradient_comes_from_a_gap(dtype):
    """Whatever a loss makes of the zeros: here, a million times their sum."""
    images, whole, gaps, present = given(THERE)

    def slopes(texts: dict[str, Tensor], present: Tensor | None, weight_of_gaps: float) -> dict[str, Tensor]:
        encoder, weights = made(dtype), torch.tensor([1.0 if there else weight_of_gaps for there in THERE], dtype=dtype)
        pictures, found, _ = encoder(images, texts, present=present)
        (found["text"].sum() + (weights[:, None] * found["extra"]).sum() + pictures["image"].sum()).backward()
        return {name: value.grad for name, value in encoder.clip.named_parameters() if value.grad is not None}

    alone, with_gaps = slopes(whole, None, 0.0), slopes(gaps, present, 1e6)
    assert alone.keys() == with_gaps.keys()
    for name in alone:
        scale = max(1.0, float(alone[name].abs().max()))
        assert torch.allclose(alone[name], with_gaps[name], rtol=0, atol=TOLERANCE[dtype] * scale), name


def test_where_no_text_is_there_at_all_every_embedding_is_zero_and_the_tower_has_no_slope():
    encoder = made()
    images, _, gaps, _ = given([False] * 5)
    pictures, found, _ = encoder(images, {"extra": gaps["extra"]}, present=torch.zeros(0, dtype=torch.int64))
    assert found["extra"].shape == (5, 16) and not found["extra"].any()
    (pictures["image"].sum() + found["extra"].sum()).backward()
    assert encoder.clip.visual.proj.grad.any()
    slope = encoder.clip.text_projection.grad
    assert slope is None or not slope.any()


def test_an_objective_may_have_no_texts():
    encoder = made()
    pictures, texts, _ = encoder(given(THERE)[0], {}, frozenset({"image"}), torch.zeros(0, dtype=torch.int64))
    assert texts == {} and pictures["image"].requires_grad


@pytest.mark.parametrize("learn", [EVERYTHING - {"text"}, EVERYTHING - {"image"}, frozenset({"scale"}), EVERYTHING])
def test_what_rests_has_no_gradient_with_gaps_either(learn):
    encoder = made()
    images, _, gaps, present = given(THERE)
    pictures, texts, scale = encoder(images, gaps, learn, present)
    assert pictures["image"].requires_grad == ("image" in learn)
    assert texts["text"].requires_grad == texts["extra"].requires_grad == ("text" in learn)
    assert scale.requires_grad == ("scale" in learn)
    assert encoder.clip.transformer.training == ("text" in learn)
    assert encoder.clip.visual.training == ("image" in learn)
    expected = made()(images, gaps, present=present)
    assert torch.equal(texts["extra"], expected[1]["extra"])


def test_low_precision_leaves_the_gaps_zero_and_embeddings_in_float32():
    images, whole, gaps, present = given(THERE)
    encoder = made(torch.float32, autocast=torch.bfloat16)
    _, found, _ = encoder(images, gaps, present=present)
    expected = encoder(images, whole)[1]
    assert found["extra"].dtype == torch.float32
    assert not found["extra"][[1, 4]].any()
    assert torch.allclose(found["extra"][THERE], expected["extra"][THERE], rtol=0, atol=0.05)


def test_a_gap_that_is_read_as_a_text_is_an_error():
    images, _, gaps, _ = given(THERE)
    with pytest.raises(IndexError):
        made()(images, gaps)


# From the loader to the gradient


def test_the_loader_says_which_texts_there_are_with_any_number_of_workers(data):
    alone, *others = (list(stream(data, Sometimes(), batch=8, workers=workers).epoch(0)) for workers in (0, 1, 2))
    for step, batch in enumerate(alone):
        tokens = torch.cat([batch["texts"]["text"], batch["texts"]["extra"]])
        assert torch.equal(batch["present"], (tokens[:, 0] >= 0).nonzero()[:, 0])
        assert batch["present"].tolist() == [*range(8), *(8 + i for i, row in enumerate(batch["rows"]) if row % 3 == 0)]
        for other in others:
            assert torch.equal(other[step]["present"], batch["present"])
            assert torch.equal(other[step]["texts"]["extra"], batch["texts"]["extra"])


def test_two_ranks_with_other_gaps_each_learn_what_one_does(data):
    alone = sometimes(data)
    for rank in on_ranks(2, sometimes, data):
        for one_in, found in alone.items():
            assert rank[one_in]["loss"] == pytest.approx(found["loss"], abs=1e-9)
            for ours, theirs in zip(found["gradients"], rank[one_in]["gradients"], strict=True):
                assert ours.keys() == theirs.keys()
                assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-9) for name in ours), one_in


def test_texts_that_are_never_there_change_nothing(data):
    plain, never = gradients(data, Clip(), 16, 2), sometimes(data)["0"]
    assert plain["loss"] == pytest.approx(never["loss"], abs=1e-12)
    for ours, theirs in zip(plain["gradients"], never["gradients"], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-12) for name in ours)
