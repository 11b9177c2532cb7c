"""PAR's loss against an independent computation, and a run under it: away from the model it began with, and resumed."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from defense.objectives.par import Par
from tests.support.drawn import drawn
from train import checkpoint, model
from train.objective import EVERYTHING, START, Clock, Features
from train.objectives.clip import Clip
from train.presets import Recipe
from train.training import Finetuning, Pretraining

CLOCK = Clock(0, 0, 1, 0)
VIEWS = ("image", "text", "old image", "old text")


def embeddings(old: float, seed: int = 0) -> dict[str, np.ndarray]:
    """old: how alike the old embeddings are to the new, 1 for the same and -1 for the opposite; one value of S each."""
    draw = np.random.default_rng(seed)
    found = {name: draw.normal(size=(5, 4)) for name in VIEWS}
    for name in ("image", "text"):
        found[f"old {name}"] = old * found[name] + 0.3 * found[f"old {name}"]
    return {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in found.items()}


def by_hand(given: dict[str, np.ndarray], scale: float, far: float, weight: float) -> float:
    """L_CLIP - weight / 2 (S_img [S_img <= far] + S_txt [S_txt <= far]), row by row."""

    def ce(queries: np.ndarray, keys: np.ndarray) -> float:
        total = 0.0
        for i in range(len(queries)):
            logits = [scale * float(queries[i] @ key) for key in keys]
            total -= logits[i] - np.log(sum(np.exp(logit) for logit in logits))
        return total / len(queries)

    pushed = 0.0
    for name in ("image", "text"):
        apart = sum(float(((a - b) ** 2).sum()) for a, b in zip(given[name], given[f"old {name}"], strict=True)) / 5
        pushed += apart if apart <= far else 0.0
    image, text = given["image"], given["text"]
    return (ce(image, text) + ce(text, image)) / 2 - weight * pushed / 2


def ours(what: Par, given: dict[str, np.ndarray], scale: float) -> tuple[float, dict[str, np.ndarray]]:
    leaves = {name: torch.tensor(value, requires_grad=not name.startswith("old")) for name, value in given.items()}
    features = Features(
        images={"image": leaves["image"], START + "image": leaves["old image"]},
        texts={"text": leaves["text"], START + "text": leaves["old text"]},
        rows=torch.arange(5),
        roles=torch.zeros(5, dtype=torch.int64),
        labels=torch.full((5,), -1),
    )
    loss = what.loss(features, torch.tensor(scale, dtype=torch.float64), CLOCK, nn.Module())
    loss.total.backward()
    return float(loss.total.detach()), {name: leaves[name].grad.numpy() for name in ("image", "text")}


@pytest.mark.parametrize("old", [1.0, -0.5, -2.0])  # S near 0.1, between, and above 2.15
@pytest.mark.parametrize(("far", "weight"), [(2.15, 1.0), (0.1, 1.0), (4.0, 0.5), (2.15, 0.0)])
def test_par_is_the_papers_loss_in_value_and_gradient(old, far, weight):
    given, scale, step = embeddings(old), 7.5, 1e-6
    value, gradients = ours(Par(far=far, push_weight=weight), given, scale)
    assert value == pytest.approx(by_hand(given, scale, far, weight), abs=1e-12)
    for name in ("image", "text"):
        for place in np.ndindex(*given[name].shape):
            sides = []
            for sign in (1, -1):
                moved = {key: entry.copy() for key, entry in given.items()}
                moved[name][place] += sign * step
                sides.append(by_hand(moved, scale, far, weight))
            assert gradients[name][place] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_what_is_far_is_pushed_no_more():
    near, far = embeddings(1.0), embeddings(-2.0)
    for given, pushed in ((near, True), (far, False)):
        clip, par = (ours(Par(push_weight=weight), given, 7.5) for weight in (0.0, 1.0))
        assert (par[0] < clip[0] - 1e-3) == pushed
        assert np.array_equal(par[1]["image"], clip[1]["image"]) != pushed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"far": 0.0}, "above 0 and at most 4, not 0"), ({"far": 5.0}, "not 5"), ({"push_weight": -1.0}, "negative")],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Par(**wrong)


def test_the_scale_rests():
    assert Par().trainable(CLOCK) == EVERYTHING - {"scale"}


# ---------------------------------------------------------------------- a run


RECIPE = Recipe(batch=16, epochs=2, lr=1e-3, warmup_steps=1)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A dataset, and a finished run."""
    folder = tmp_path_factory.mktemp("par")
    drawn(str(folder / "pairs"), 64, 2)
    given = Pretraining(objective=Clip(), dataset=str(folder / "pairs"), out=str(folder / "run"), model="tiny-vit",
                        recipe=RECIPE, workers=0)  # fmt: skip
    given.run()
    return str(folder / "pairs"), str(folder / "run")


def finetuning(victim: tuple[str, str], out: Path, **changed: object) -> Finetuning:
    data, run = victim
    fields = {"objective": Par(), "dataset": data, "pretrained": run, "out": str(out), "recipe": RECIPE, "workers": 0}
    return Finetuning(**(fields | changed))  # type: ignore[arg-type]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return model.load_weights(checkpoint.find(str(out)).read(checkpoint.MODEL))


def test_a_run_goes_away_from_the_model_it_began_with(victim, tmp_path):
    measured = {}
    for name, what in (("par", Par()), ("held", Par(push_weight=0.0))):
        finetuning(victim, tmp_path / name, objective=what, recipe=replace(RECIPE, lr=5e-3)).run()
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        measured[name] = [float(line.split('"images_moved": ')[1].split(",")[0].rstrip("}")) for line in lines]
    assert measured["par"][0] < 1e-9, "at the first step it is that model"
    assert measured["par"][-1] > 1.5 * measured["held"][-1]


def test_a_resumed_run_still_knows_the_model_it_began_with(victim, tmp_path, monkeypatch):
    """Not the one that it was resumed with."""
    finetuning(victim, tmp_path / "whole").run()
    saved = checkpoint.save

    def saved_and_told_to_end(url: str, step: int, *rest: object) -> None:
        saved(url, step, *rest)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save", saved_and_told_to_end)
    with pytest.raises(BaseException, match="told to end"):
        finetuning(victim, tmp_path / "resumed", checkpoint_steps=3).run()
    monkeypatch.setattr(checkpoint, "save", saved)
    assert "8 steps" in finetuning(victim, tmp_path / "resumed", checkpoint_steps=3).run()
    whole, resumed, before = (weights(folder) for folder in (tmp_path / "whole", tmp_path / "resumed", Path(victim[1])))
    assert torch.equal(whole["logit_scale"], before["logit_scale"]), "the scale rests"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_pretraining_from_nothing_has_no_model_to_leave(victim, tmp_path):
    with pytest.raises(ValueError, match="finetune a run with it, or give --pretrained"):
        Pretraining(objective=Par(), dataset=victim[0], out=str(tmp_path / "x"), model="tiny-vit", recipe=RECIPE)
