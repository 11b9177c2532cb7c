"""How a step may be taken beside the plain way. What it learns is the same: tests/contracts/test_objectives.py."""

import contextlib
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from defense.objectives.cleanclip import CleanClip
from infra import rundir
from tests.support import gpu, runs
from tests.support.drawn import drawn
from tests.support.learning import largest_of_loss, trained_on_ranks
from tests.support.several_ranks import on_ranks
from tests.support.stopping import stop
from train import checkpoint, model, optim
from train.encoder import Encoder
from train.objective import Clock
from train.objectives.clip import Clip
from train.objectives.siglip import SigLip, sigmoid_loss
from train.presets import Recipe
from train.step import Way, learn, micro_batches
from train.training import Pretraining

RECIPE = Recipe(batch=16, epochs=2, lr=3e-3, warmup_steps=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("step") / "data")
    drawn(url, 80, 2)
    return url


def pretraining(data: str, out: object, recipe: Recipe = RECIPE, **changed: object) -> Pretraining:
    return runs.pretraining(data, out, recipe, **changed)


def weights(run: Pretraining) -> dict[str, Tensor]:
    return model.load_weights(checkpoint.find(run.out).read(checkpoint.MODEL))


def beginning(run: Pretraining) -> dict[str, Tensor]:
    return model.create(model.architecture(run.model), run.seed).state_dict()


def close(one: Pretraining, other: Pretraining, tolerance: float) -> bool:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return all(torch.allclose(ours[name], theirs[name], rtol=0, atol=tolerance) for name in ours)


def encoder(architecture: model.Architecture) -> Encoder:
    return Encoder(model.create(architecture, 0).double(), *model.mean_and_std(architecture))


def batch(pairs: int = 8, missing: tuple[int, ...] = ()) -> dict[str, object]:
    """With a second text, which the pairs of `missing` do not have."""
    drawn_ = torch.Generator().manual_seed(0)
    tokens = model.tokenizer(model.architecture("tiny-vit"))([f"number {row}" for row in range(pairs)])
    there = torch.tensor([row not in missing for row in range(pairs)])
    rows = torch.arange(pairs)
    return {
        "images": {"image": torch.randint(0, 256, (pairs, 3, 32, 32), dtype=torch.uint8, generator=drawn_)},
        "texts": {"text": tokens, "extra": torch.where(there[:, None], tokens.flip(0), -1)},
        "present": torch.cat([torch.ones(pairs, dtype=torch.bool), there]).nonzero()[:, 0],
        "rows": rows,
        "roles": rows % 2,
        "labels": rows % 3,
    }


# Micro-batches


def test_micro_batches_are_the_batch_in_parts_with_what_each_of_its_pairs_has():
    whole = batch(missing=(0, 1, 5))
    parts = list(micro_batches(whole, 2))
    assert len(parts) == 4
    assert torch.equal(torch.cat([part["texts"]["extra"] for part in parts]), whole["texts"]["extra"])
    assert torch.equal(torch.cat([part["labels"] for part in parts]), whole["labels"])
    assert [part["present"].tolist() for part in parts] == [[0, 1], [0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3]]


def dropping() -> model.Architecture:
    found = model.architecture("tiny-vit")
    found["model_cfg"]["vision_cfg"]["patch_dropout"] = 0.5
    return found


def test_both_passes_drop_the_same():
    """The reference has all micro-batches in one graph, each with the draws of its own."""
    clock, given = Clock(0, 0, 1, 0), batch()
    ours, reference = encoder(dropping()).train(), encoder(dropping()).train()
    learn(ours, Clip(), nn.Module(), given, clock, Way(2), draw=torch.manual_seed)
    images, texts = [], []
    for i, part in enumerate(micro_batches(given, 2)):
        torch.manual_seed(i)
        pictures, captions, scale = reference(part["images"], part["texts"], present=part["present"])
        images.append(nn.functional.normalize(pictures["image"], dim=1))
        texts.append(nn.functional.normalize(captions["text"], dim=1))
    logits = scale * torch.cat(images) @ torch.cat(texts).T
    labels = torch.arange(8)
    ((nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)) / 2).backward()
    for (name, one), (_, two) in zip(ours.clip.named_parameters(), reference.clip.named_parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=0, atol=1e-12), name
    other = encoder(dropping()).train()
    learn(other, Clip(), nn.Module(), given, clock, Way(2), draw=lambda i: torch.manual_seed(i + 1))
    assert not torch.allclose(ours.clip.visual.proj.grad, other.clip.visual.proj.grad)


def test_a_run_in_micro_batches_ends_where_another_does_and_may_change_on_the_way(data, tmp_path, capsys):
    whole, parts, mixed = (
        pretraining(data, tmp_path / name, precision="float64", micro_batch=micro, checkpoint_steps=3)
        for name, micro in (("whole", None), ("parts", 4), ("mixed", 4))
    )
    whole.run()
    parts.run()
    stop(mixed, 5)
    replace(mixed, micro_batch=2, local_loss=True).run()
    assert close(whole, parts, 1e-9) and close(whole, mixed, 1e-9)
    assert "micro_batch 4 then, 2 now" in capsys.readouterr().err
    attempts = rundir.environment(mixed.out)["attempts"]
    assert [attempt.get("micro_batch") for attempt in attempts] == [4, 2]


def test_a_run_of_before_these_settings_existed_is_one_without_them(data, tmp_path):
    run = pretraining(data, tmp_path / "run")
    run.run()
    before = rundir.config(run.out)
    for name in ("micro_batch", "local_loss", "grad_checkpointing", "sync_batchnorm", "compile", "wandb"):
        del before[name]
    del before["recipe"]["grad_clip"], before["recipe"]["lock"]
    (tmp_path / "run" / "config.json").write_text(rundir.storage.dump_json(before).decode())
    assert "nothing to do" in run.run()
    with pytest.raises(ValueError, match=r"its recipe\.lock is None, not 'image'"):
        replace(run, recipe=replace(RECIPE, lock="image")).run()


# Logits that are shared out, SigLIP


def test_a_rank_makes_its_share_of_the_logits_alone():
    """The largest tensor of a loss of 12 pairs of 2 numbers: 12 x 12 logits, or on each of two ranks 6 x 12."""
    assert on_ranks(2, largest_of_loss) == [{"all": 144, "share": 72}] * 2


def test_siglip_is_its_formula_term_by_term():
    images, texts = (nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=1) for _ in range(2))
    wanted = 0.0
    for i in range(4):
        for j in range(4):
            z = 1 if i == j else -1
            wanted += math.log(1 + math.exp(-z * (7.0 * float(images[i] @ texts[j]) - 3.0))) / 4
    found = sigmoid_loss(images, texts, torch.tensor(7.0), torch.tensor(-3.0))
    assert float(found) == pytest.approx(wanted)


def test_open_clips_siglip_agrees():
    from open_clip.loss import SigLipLoss

    images, texts = (nn.functional.normalize(torch.randn(8, 5, dtype=torch.float64), dim=1) for _ in range(2))
    scale, bias = torch.tensor(9.0), torch.tensor(-10.0)
    assert float(sigmoid_loss(images, texts, scale, bias)) == pytest.approx(
        float(SigLipLoss()(images, texts, scale, bias))
    )


def test_siglips_bias_is_learned_and_goes_on_after_a_stop(data, tmp_path):
    whole, broken = (
        pretraining(data, tmp_path / name, objective=SigLip(), checkpoint_steps=3) for name in ("whole", "broken")
    )
    whole.run()
    stop(broken, 5)
    broken.run()
    ours, theirs = (float(checkpoint.find(run.out).read_training()["objective"]["bias"]) for run in (whole, broken))
    assert ours == theirs != -10.0


# Gradient checkpointing


def test_activations_computed_anew_give_the_same_gradients_where_a_model_can():
    plain, anew = (encoder(dropping()).train() for _ in range(2))
    assert model.recompute_activations(anew.clip) == {"image", "text"}
    for one in (plain, anew):
        learn(one, Clip(), nn.Module(), batch(), Clock(0, 0, 1, 0), Way(), draw=torch.manual_seed)
    for (name, ours), (_, theirs) in zip(plain.clip.named_parameters(), anew.clip.named_parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-12), name
    assert saved(anew) < saved(plain)


def saved(one: Encoder) -> int:
    """Bytes that a forward pass keeps for the way back, parameters aside."""
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in one.parameters()}

    def keep(value: Tensor) -> Tensor:
        if value.data_ptr() not in own:
            kept[value.data_ptr()] = value.numel() * value.element_size()
        return value

    given = batch()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        one(given["images"], given["texts"], present=given["present"])
    return sum(kept.values())


def test_where_a_tower_cannot_it_is_said(data, tmp_path, capsys):
    run = pretraining(data, tmp_path / "run", model="tiny-resnet", grad_checkpointing=True)
    run.run()
    assert "warning: no gradient checkpointing for the image tower" in capsys.readouterr().err


# A locked tower


@pytest.mark.parametrize(
    ("lock", "name"), [("image", "tiny-resnet"), ("image", "picturebook-resnet"), ("text", "tiny-vit")]
)
def test_nothing_of_a_locked_tower_moves_by_a_bit(data, tmp_path, lock, name):
    run = pretraining(
        data,
        tmp_path / "run",
        objective=CleanClip(),
        model=name,
        recipe=replace(RECIPE, lock=lock, epochs=1),
        micro_batch=8,
    )
    run.run()
    before, after = beginning(run), weights(run)
    locked = {one for one in before if one.startswith("visual.") == (lock == "image") and one != "logit_scale"}
    moved = {one for one in before if not torch.equal(before[one], after[one])}
    assert lock == "text" or any("running_mean" in one for one in locked)
    assert not moved & locked
    assert "logit_scale" in moved and len(moved) > 5


# Clipping, and float16's scaler


def updated(grad_clip: float | None, gradient: list[float], scaler: torch.amp.GradScaler | None = None) -> list[float]:
    parameter = nn.Parameter(torch.zeros(2))
    update = optim.Update(torch.optim.SGD([parameter], lr=1.0), grad_clip, scaler)
    update.scaled((parameter * torch.tensor(gradient)).sum()).backward()
    length = update.take()
    assert parameter.grad is None
    assert length is None if grad_clip is None else math.isnan(float(length)) or float(length) == math.hypot(*gradient)
    return (-parameter.detach()).tolist()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_is_shortened_to_the_length_that_is_allowed(scaled):
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    assert updated(None, [3.0, 4.0], scaler) == [3.0, 4.0]
    assert updated(10.0, [3.0, 4.0], scaler) == [3.0, 4.0]
    assert updated(1.0, [3.0, 4.0], scaler) == pytest.approx([0.6, 0.8], abs=1e-5)


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_factor_halved():
    scaler = torch.amp.GradScaler("cpu")
    assert updated(None, [1e38, 0.0], scaler) == [0.0, 0.0]
    assert scaler.get_scale() == 2.0**15
    assert updated(None, [1.0, 0.0], scaler) == [1.0, 0.0]


def test_a_clipped_run_says_how_long_its_gradients_were(data, tmp_path):
    run = pretraining(data, tmp_path / "run", recipe=replace(RECIPE, grad_clip=0.01, epochs=1))
    run.run()
    assert all(line["gradient_norm"] > 0.01 for line in rundir.metrics(run.out))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_and_resumes_on_a_gpu(data, tmp_path, precision):
    gpu.device(why_not_cpu="float16 needs a GPU" if precision == "float16" else "")
    whole, broken = (
        pretraining(data, tmp_path / name, precision=precision, micro_batch=8, checkpoint_steps=3)
        for name in ("whole", "broken")
    )
    whole.run()
    stop(broken, 5)
    broken.run()
    training = checkpoint.find(broken.out).read_training()
    assert ("scaler" in training) == (precision == "float16")
    assert all(torch.isfinite(value).all() for value in weights(broken).values())
    assert close(whole, broken, 1e-2)


# BatchNorm over ranks


def test_batchnorm_synchronised_over_two_ranks_is_that_of_one_process(data, tmp_path):
    """Ten steps; weights and running statistics. Each rank's own statistics give something else."""
    alone, together, apart = (
        pretraining(data, tmp_path / name, model="tiny-resnet", precision="float64", sync_batchnorm=sync)
        for name, sync in (("alone", False), ("together", True), ("apart", False))
    )
    alone.run()
    on_ranks(2, trained_on_ranks, together)
    on_ranks(2, trained_on_ranks, apart)
    assert close(alone, together, 1e-6)
    assert not close(alone, apart, 1e-3)


# torch.compile


@pytest.mark.slow
def test_where_the_compiler_fails_it_is_one_line(data, tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, str(tmp_path / "no compiler")))
    run = pretraining(data, tmp_path / "run", compile=True)
    with pytest.raises(ValueError, match=r"^--compile does not work for this model .*: leave it out$") as found:
        run.run()
    assert "\n" not in str(found.value)
    with contextlib.suppress(Exception):
        torch._dynamo.reset()
    replace(run, compile=False).run()
