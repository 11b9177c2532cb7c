"""What of a run is another thing on a GPU. Tried on a CPU, where that can be, by `make gpu DEVICE=cpu`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from infra import rundir
from infra.errors import Lost
from tests.support import gpu
from tests.support.drawn import drawn
from tests.support.learning import backend_trained_on
from tests.support.several_ranks import on_ranks
from tests.support.stopping import stop
from train import checkpoint, loop, model, optim
from train.objective import Clock, Features, Loss
from train.objectives.clip import Clip
from train.presets import Recipe
from train.stream import Batch
from train.training import Pretraining

RECIPE = Recipe(batch=16, epochs=2, lr=3e-3, warmup_steps=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("gpu") / "data")
    drawn(url, 80, 2)
    return url


def pretraining(data: str, out: object, **changed: object) -> Pretraining:
    fields = {"objective": Clip(), "model": "tiny-vit", "recipe": RECIPE, "workers": 0} | changed
    return Pretraining(dataset=data, out=str(out), **fields)  # type: ignore[arg-type]


def furthest(one: Pretraining, other: Pretraining) -> float:
    """The largest difference of any weight."""
    ours, theirs = (model.load_weights(checkpoint.find(run.out).read(checkpoint.MODEL)) for run in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def losses(run: Pretraining) -> list[float]:
    return [line["loss"] for line in rundir.metrics(run.out)]


@pytest.mark.gpu
def test_two_gpus_learn_through_nccl_what_one_learns(data, tmp_path):
    device = gpu.device(2, "two ranks on CPUs are what tests/train/test_ranks.py is about")
    alone, together = (pretraining(data, tmp_path / name, precision="float64") for name in ("alone", "together"))
    alone.run()
    backends = on_ranks(2, backend_trained_on, together)
    assert backends == ["nccl" if device.type == "cuda" else "gloo"] * 2
    assert furthest(alone, together) < 1e-7


@pytest.mark.gpu
def test_a_run_goes_on_with_the_batches_of_one_that_was_never_stopped(data, tmp_path, monkeypatch):
    """Workers, and memory that is pinned for the GPU."""
    device = gpu.device()
    seen: list[tuple[int, list[int], str]] = []
    learn: Callable[..., tuple[Loss, Tensor]] = loop.learn

    def watched(learner: nn.Module, objective: Clip, state: nn.Module, batch: Batch, clock: Clock, *rest, **named):
        assert batch["images"]["image"].is_pinned() == (device.type == "cuda")
        loss, rows = learn(learner, objective, state, batch, clock, *rest, **named)
        seen.append((clock.step, rows.tolist(), loss.total.device.type))
        return loss, rows

    monkeypatch.setattr(loop, "learn", watched)
    whole, broken = (pretraining(data, tmp_path / name, checkpoint_steps=3, workers=2) for name in ("whole", "broken"))
    whole.run()
    once, seen = {step: rows for step, rows, _ in seen}, []
    stop(broken, 5)
    broken.run()
    assert {kind for *_, kind in seen} == {device.type}
    assert [step for step, *_ in seen] == [0, 1, 2, 3, 4, *range(3, 10)]
    assert all(once[step] == rows for step, rows, _ in seen)


@pytest.mark.gpu
def test_a_loss_that_is_not_finite_is_found_later_and_told_with_its_own_step(data, tmp_path):
    gpu.device()

    @dataclass(frozen=True, kw_only=True)
    class Broken(Clip):
        def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
            return Loss(super().loss(features, scale, clock, state).total * (float("nan") if clock.step == 4 else 1))

    with pytest.raises(Lost, match="the loss is nan at step 5, of the pairs 0000000"):
        pretraining(data, tmp_path / "run", objective=Broken()).run()
    assert checkpoint.find(str(tmp_path / "run")) is None


@pytest.mark.gpu
def test_the_scaler_of_float16_leaves_out_a_step_that_overflows_and_halves_its_factor():
    device = gpu.device()
    parameter = nn.Parameter(torch.zeros(2, device=device))
    scaler = torch.amp.GradScaler(device.type)
    update = optim.Update(torch.optim.SGD([parameter], lr=1.0), 1.0, scaler)
    for gradient, wanted, factor in (
        ([1e38, 0.0], [0.0, 0.0], 2.0**15),
        ([3.0, 4.0], [-0.6, -0.8], 2.0**15),
    ):
        update.scaled((parameter * torch.tensor(gradient, device=device)).sum()).backward()
        update.take()
        assert parameter.tolist() == pytest.approx(wanted, abs=1e-5)
        assert scaler.get_scale() == factor


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_low_precision_learns_nearly_what_float32_does(data, tmp_path, precision):
    gpu.device(why_not_cpu="float16 needs a GPU" if precision == "float16" else "")
    whole, low = (pretraining(data, tmp_path / name, precision=name) for name in ("float32", precision))
    whole.run()
    low.run()
    ours, theirs = losses(low), losses(whole)
    assert ours != theirs and ours[0] == pytest.approx(theirs[0], rel=0.01)
    assert ours[-1] == pytest.approx(theirs[-1], rel=0.05) and ours[-1] < ours[0] - 0.5


@pytest.mark.gpu
def test_a_compiled_run_learns_nearly_what_another_does_and_goes_on_after_a_stop(data, tmp_path):
    gpu.device(why_not_cpu="compiling for a CPU takes a minute or two")
    recipe = replace(RECIPE, epochs=1)
    plain, compiled = (
        pretraining(
            data, tmp_path / name, recipe=recipe, precision="float32", checkpoint_steps=2, compile=name != "plain"
        )
        for name in ("plain", "compiled")
    )
    plain.run()
    stop(compiled, 3)
    compiled.run()
    assert rundir.environment(compiled.out)["attempts"][-1]["compile"] is True
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-3)  # weights without a gradient drift by rounding
