import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from defense.objectives.cleanclip import CleanClip
from infra import rundir, storage
from infra.errors import Lost
from tests.support import runs
from tests.support.drawn import drawn
from tests.support.learning import stream, trained_on_ranks
from tests.support.several_ranks import on_ranks
from tests.support.stopping import Stopped, stop
from train import checkpoint, finite, loop, model, optim, order
from train.objective import EVERYTHING, Clock, Features, Loss, Setting
from train.objectives.clip import Clip
from train.presets import Recipe
from train.training import Pretraining

RECIPE = Recipe(batch=16, epochs=3, lr=3e-3, warmup_steps=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("loop") / "data")
    drawn(url, 100, 3)
    return url


def pretraining(data: str, out: object, recipe: Recipe = RECIPE, **changed: object) -> Pretraining:
    return runs.pretraining(data, out, recipe, **changed)


def weights(out: object) -> bytes:
    return checkpoint.find(str(out)).read(checkpoint.MODEL)


def losses(out: object) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in rundir.metrics(str(out))]


# What a run leaves


def test_a_run_learns_and_leaves_what_the_next_stages_need(data, tmp_path, capsys):
    out = tmp_path / "run"
    run = pretraining(data, out, recipe=replace(RECIPE, epochs=12))
    line = run.run()
    assert line == f"72 steps; run at {out} (step-0000072), for open_clip in {out}/open_clip"
    measured = losses(out)
    assert [step for step, _ in measured] == list(range(1, 73))
    assert np.mean([loss for _, loss in measured[-6:]]) < np.mean([loss for _, loss in measured[:6]]) - 0.1
    assert sorted(path.name for path in out.iterdir()) == [
        "DONE", "checkpoints", "config.json", "environment.json", "events.out.tfevents.0.antidote",
        "metrics.jsonl", "open_clip",
    ]  # fmt: skip
    assert rundir.done(str(out))["sha256"] == checkpoint.find(str(out)).sha256(checkpoint.MODEL)
    assert model.to_bytes(model.load_run(str(out)).model) == weights(out)
    assert "training for 72 steps on 1 x cpu" in capsys.readouterr().err


def test_measurements_say_where_the_run_is(data, tmp_path):
    pretraining(data, tmp_path / "run", objective=CleanClip()).run()
    line = rundir.metrics(str(tmp_path / "run"))[7]
    assert (line["step"], line["epoch"]) == (8, 1)
    assert set(line["parts"]) == {"clip", "inmodal"}
    assert line["loss"] == pytest.approx(sum(line["parts"].values()))
    assert line["lr"] == pytest.approx(optim.learning_rate(7, lr=3e-3, warmup_steps=3, total_steps=18))
    assert 1 <= line["logit_scale"] <= 100
    assert line["samples_per_second"] > 0
    assert 0 <= line["data_wait_share"] <= 1
    assert all(0 < line[f"{name}_ms"] < 1000 for name in ("decode", "transform", "tokens"))


def test_a_second_run_does_nothing_and_says_so(data, tmp_path):
    run = pretraining(data, tmp_path / "run")
    run.run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert run.run() == f"nothing to do: {tmp_path}/run is finished (step-0000018)"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_the_same_command_elsewhere_gives_the_same_bytes(data, tmp_path):
    for name, workers in (("one", 0), ("two", 1)):
        pretraining(data, tmp_path / name, workers=workers).run()
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    pretraining(data, tmp_path / "three", seed=1).run()
    assert weights(tmp_path / "three") != weights(tmp_path / "one")


# Resuming


@pytest.mark.parametrize("step", [1, 6, 8, 13, 18])
def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(data, tmp_path, step):
    """Stopped before the first checkpoint, at an epoch's end, in mid-epoch, and at the very last step."""
    whole, broken = (pretraining(data, tmp_path / name, checkpoint_steps=5) for name in ("whole", "broken"))
    whole.run()
    stop(broken, step)
    assert rundir.done(broken.out) is None
    broken.run()
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    starts = [attempt["step"] for attempt in rundir.environment(broken.out)["attempts"]]
    assert starts == [0, 5 * ((step - 1) // 5)]


def test_batch_statistics_are_part_of_a_checkpoint(data, tmp_path):
    whole, broken = (
        pretraining(data, tmp_path / n, model="tiny-resnet", checkpoint_steps=5) for n in ("whole", "broken")
    )
    whole.run()
    stop(broken, 13)
    broken.run()
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    found = model.load_weights(weights(tmp_path / "whole"))
    assert float(found["visual.bn1.running_mean"].abs().sum()) > 0
    assert int(found["visual.bn1.num_batches_tracked"]) == 18


def test_what_a_model_draws_in_a_step_is_that_steps(data, tmp_path, monkeypatch):
    """Patch dropout: torch's generator decides what a tower sees, and is not saved."""
    plain = model.architecture("tiny-vit")
    plain["model_cfg"]["vision_cfg"]["patch_dropout"] = 0.5
    monkeypatch.setattr(model, "architecture", lambda name: plain)
    whole, broken, alike = (
        pretraining(data, tmp_path / name, checkpoint_steps=5) for name in ("whole", "broken", "alike")
    )
    whole.run()
    stop(broken, 13)
    broken.run()
    replace(alike, workers=1).run()
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole") == weights(tmp_path / "alike")


def test_stopped_again_and_again_and_with_other_workers(data, tmp_path):
    pretraining(data, tmp_path / "whole").run()
    for calls, workers in ((4, 0), (5, 1), (6, 0)):
        stop(pretraining(data, tmp_path / "broken", checkpoint_steps=2, workers=workers), calls)
    pretraining(data, tmp_path / "broken", workers=1).run()
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_a_run_stopped_between_its_last_checkpoint_and_done_is_finished(data, tmp_path, monkeypatch):
    run = pretraining(data, tmp_path / "run")

    def broken(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop.model, "export", broken)
        with pytest.raises(Stopped):
            run.run()
    assert "18 steps" in run.run()
    assert (tmp_path / "run" / "DONE").exists()
    assert (tmp_path / "run" / "open_clip" / "open_clip_model.safetensors").exists()


def test_steps_go_on_while_a_checkpoint_is_written(data, tmp_path, monkeypatch):
    """The first write lasts until the second is due; what it holds is the state of its own step."""
    taken, clamp, save, held = [], optim.clamp_logit_scale, checkpoint.save, threading.Event()
    written: dict[str, dict[int, bytes]] = {"whole": {}, "slow": {}}

    def step_taken(clip: nn.Module) -> None:
        clamp(clip)
        taken.append(1)
        if len(taken) == 15:
            held.set()

    def slow(out: str, step: int, weights: bytes, *more: object) -> object:
        assert held.wait(60), "training waited for the checkpoint"
        written[Path(out).name][step] = weights
        return save(out, step, weights, *more)

    monkeypatch.setattr(loop.checkpoint, "save", slow)
    with monkeypatch.context() as patch:
        patch.setattr(loop.optim, "clamp_logit_scale", step_taken)
        pretraining(data, tmp_path / "slow", checkpoint_steps=8).run()
    pretraining(data, tmp_path / "whole", checkpoint_steps=8).run()
    assert list(written["slow"]) == [8, 16, 18]
    assert written["slow"] == written["whole"]


def test_a_folder_that_was_removed_is_not_brought_back(data, tmp_path, monkeypatch):
    """Between two lines of metrics.jsonl, by who took the run for dead."""
    out, clamp, taken = tmp_path / "run", optim.clamp_logit_scale, []

    def removed(clip: nn.Module) -> None:
        clamp(clip)
        taken.append(1)
        if len(taken) == 3:
            out.rename(tmp_path / "gone")

    monkeypatch.setattr(loop.optim, "clamp_logit_scale", removed)
    monkeypatch.setattr(loop.journal.Journal, "append", lambda book, line: None)  # it is not due
    with pytest.raises(Lost, match=f"the folder of the run was removed while it went on: {out}; nothing more"):
        pretraining(data, out, checkpoint_steps=3).run()
    assert not out.exists()


def test_a_damaged_last_checkpoint_costs_only_the_steps_since_the_one_before(data, tmp_path):
    whole, broken = (pretraining(data, tmp_path / name, checkpoint_steps=4) for name in ("whole", "broken"))
    whole.run()
    stop(broken, 15)
    newest = Path(checkpoint.find(broken.out).url, checkpoint.TRAINING)
    newest.write_bytes(newest.read_bytes()[:-1])
    broken.run()
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_a_run_goes_on_with_another_number_of_ranks(data, tmp_path):
    """The batches are the same; the arithmetic agrees up to rounding (this model has no batch statistics).

    In float64: a gradient that is 0 but for its rounding, as that of the keys' bias in attention, is all Adam needs to
    take a whole step in float32.
    """
    pretraining(data, tmp_path / "whole", precision="float64").run()
    broken = pretraining(data, tmp_path / "broken", precision="float64", checkpoint_steps=4)
    stop(broken, 10)
    lines = on_ranks(2, trained_on_ranks, broken)
    assert lines[0] == lines[1]
    one, two = (model.load_weights(weights(tmp_path / name)) for name in ("whole", "broken"))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-9) for name in one)
    assert losses(broken.out) == [(step, pytest.approx(loss, abs=1e-9)) for step, loss in losses(tmp_path / "whole")]
    assert [attempt["ranks"] for attempt in rundir.environment(broken.out)["attempts"]] == [1, 2]


@dataclass(frozen=True, kw_only=True)
class Demanding(Clip):
    """Uses all of the seam: a state with parameters and a buffer, roles by score, epochs in which one tower rests."""

    def state(self, setting: Setting) -> nn.Module:
        head = nn.Linear(16, 16)
        head.register_buffer("pool", torch.zeros(8, 16))
        return head

    def epoch(self, clock: Clock, rows: np.ndarray, score, rng, state) -> np.ndarray:  # type: ignore[no-untyped-def]
        return (score(np.arange(len(rows))) > np.median(score(np.arange(0, len(rows), 7)))).astype(np.int64)

    def trainable(self, clock: Clock) -> frozenset[str]:
        return EVERYTHING - {"text"} if clock.epoch == 1 else EVERYTHING

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        texts = state(features.texts["text"])
        state.pool.copy_(torch.cat([texts.detach(), state.pool])[:8])
        weight = 1 + features.roles.double().mean() + state.pool.mean().detach()
        plain = super().loss(features, scale, clock, state).total
        return Loss(weight.float() * plain + (texts - features.images["image"]).square().mean())


@dataclass(frozen=True, kw_only=True)
class Counting(Clip):
    """Tells how many batches it remembered before a loss."""

    def state(self, setting: Setting) -> nn.Module:
        state = nn.Module()
        state.register_buffer("batches", torch.zeros(()))
        return state

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        plain = super().loss(features, scale, clock, state).total
        return Loss(plain, {"batches": state.batches.clone()})

    def remember(self, features: Features, clock: Clock, state: nn.Module) -> None:
        assert not torch.is_grad_enabled()
        state.batches += 1


def test_a_batch_is_remembered_once_and_after_its_loss(data, tmp_path):
    """Otherwise an image would find its own caption in RoCLIP's pool."""
    run = pretraining(data, tmp_path / "run", objective=Counting())
    run.run()
    told = [(line["step"], line["parts"]["batches"]) for line in rundir.metrics(run.out)]
    assert len(told) > 4
    assert all(batches == step - 1 for step, batches in told)


@pytest.mark.parametrize("step", [9, 12, 17])
def test_an_objective_with_a_state_roles_and_a_resting_tower_resumes_exactly(data, tmp_path, step):
    whole, broken = (
        pretraining(data, tmp_path / n, objective=Demanding(), checkpoint_steps=4) for n in ("whole", "broken")
    )
    whole.run()
    stop(broken, step)
    broken.run()
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    states = [checkpoint.find(run.out).read_training()["objective"] for run in (whole, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in ("weight", "bias", "pool"))
    assert float(states[0]["pool"].abs().sum()) > 0


def test_a_resting_tower_does_not_move_at_all(data, tmp_path):
    run = pretraining(
        data, tmp_path / "run", objective=Demanding(), checkpoint_steps=6, recipe=replace(RECIPE, epochs=2)
    )
    run.run()
    before, after = (model.load_run(run.out, name).model.state_dict() for name in ("step-0000006", "step-0000012"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "visual.proj" in moved
    assert "logit_scale" in moved
    assert not [
        name for name in moved if name.startswith(("transformer", "token_embedding", "text_projection", "ln_final"))
    ]


def test_a_run_in_another_store_than_a_disk(data, tmp_path):
    out = f"memory://loop-{tmp_path.name}"
    pretraining(data, out).run()
    pretraining(data, tmp_path / "disk").run()
    assert weights(out) == weights(tmp_path / "disk")
    assert losses(out) == losses(tmp_path / "disk")
    storage.remove(out)


# Ends


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(data, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Broken(Clip):
        def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
            return Loss(super().loss(features, scale, clock, state).total * (float("nan") if clock.step == 4 else 1))

    run = pretraining(data, tmp_path / "run", objective=Broken())
    with pytest.raises(Lost, match=r"the loss is nan at step 5, of the pairs 0000000.*: set --lr lower") as found:
        run.run()
    assert "\n" not in str(found.value)
    assert checkpoint.find(run.out) is None
    told = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    ids = order.batch_ids(order.epoch_ids(run.seed, 0, 16, 100), 4, 16)
    assert told == {"step": 5, "loss": "nan", "rows": ids.tolist(), "keys": [f"{row:09d}" for row in ids]}
    assert f"of the pairs {', '.join(told['keys'][:8])} and 8 more (all in {run.out}/not_finite.json): " in str(
        found.value
    )


@pytest.mark.parametrize("at_once", [True, False])
def test_the_first_loss_that_is_not_finite_is_the_one_that_is_told(data, tmp_path, at_once):
    """On a GPU several are looked at together, and all after the first are its consequence."""
    run = pretraining(data, tmp_path / "run")
    job = run.job()
    watch = finite.Watch(job, stream(data, Clip(), batch=16), torch.device("cpu"))
    watch.at_once = at_once
    values = [1.0, 2.0, float("inf"), float("nan")]

    def look() -> None:
        for step, value in enumerate(values, start=1):
            watch.add(step, torch.tensor(value), None)
        assert not at_once
        watch.check(None)

    with pytest.raises(Lost, match="the loss is inf at step 3"):
        look()


def test_determinism_is_asked_for_during_a_run_only(data, tmp_path):
    pretraining(data, tmp_path / "run").run()
    assert not torch.are_deterministic_algorithms_enabled()


def test_float64_is_float64_throughout(data, tmp_path):
    run = pretraining(data, tmp_path / "run", precision="float64", recipe=replace(RECIPE, epochs=1))
    run.run()
    assert {value.dtype for value in model.load_weights(weights(tmp_path / "run")).values()} == {torch.float64}
