import math

import pytest
import torch
from torch import nn

from train import model, optim


def names_by_decay(modules: dict[str, nn.Module]) -> tuple[set[str], set[str]]:
    decayed, plain = optim.groups(modules.values(), 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    known = {id(p): f"{which}.{name}" for which, module in modules.items() for name, p in module.named_parameters()}
    return tuple({known[id(p)] for p in group["params"]} for group in (decayed, plain))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["tiny-vit", "RN50-quickgelu"])
def test_every_parameter_of_a_clip_is_in_one_group(name):
    architecture = model.architecture(name)
    with torch.device("meta"):
        clip = model.create(architecture)
    decayed, plain = names_by_decay({"clip": clip})
    assert decayed | plain == {f"clip.{name}" for name, _ in clip.named_parameters()}
    assert "clip.logit_scale" in plain
    assert all("weight" in one or "proj" in one or "embedding" in one for one in decayed)
    assert not [one for one in decayed if one.endswith("bias") or "ln_" in one or "bn" in one]


def test_a_shortcuts_batch_norm_is_not_decayed_though_its_name_does_not_say_what_it_is():
    with torch.device("meta"):
        clip = model.create(model.architecture("RN50-quickgelu"))
    _, plain = names_by_decay({"clip": clip})
    assert "clip.visual.layer1.0.downsample.1.weight" in plain


def test_a_head_of_the_objective_is_grouped_by_the_same_rule():
    decayed, plain = names_by_decay({"clip": nn.LayerNorm([2, 3]), "head": nn.Linear(2, 2)})
    assert decayed == {"head.weight"}
    assert plain == {"head.bias", "clip.weight", "clip.bias"}


def test_a_parameter_in_two_modules_has_no_single_rule():
    shared = nn.Linear(2, 2)
    with pytest.raises(AssertionError, match="shared"):
        optim.groups([shared, shared], 0.1)


def test_warm_up_and_cosine_by_the_steps_taken():
    rates = [optim.learning_rate(step, lr=1.0, warmup_steps=4, total_steps=12) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert optim.learning_rate(0, lr=2.0, warmup_steps=0, total_steps=5) == 2.0


def test_the_logit_scale_stays_between_1_and_100():
    clip = nn.Module()
    for value, wanted in ((9.0, 100.0), (-3.0, 1.0), (2.0, math.exp(2.0))):
        clip.logit_scale = nn.Parameter(torch.tensor(value))
        optim.clamp_logit_scale(clip)
        assert float(clip.logit_scale.detach().exp()) == pytest.approx(wanted)


def test_a_parameter_without_a_gradient_does_not_move():
    """A frozen tower: AdamW would decay it and drift on its momentum if its gradient were zero instead of none."""
    frozen, learning = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = optim.adamw([frozen, learning], lr=0.1, weight_decay=0.5, beta1=0.9, beta2=0.999, eps=1e-8)
    before = frozen.weight.detach().clone()
    learning(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(frozen.weight, before)
    assert not torch.equal(learning.weight, before)
