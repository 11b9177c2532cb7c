"""RoCLIP: its loss against numpy in float64, its pool in simulated runs, and real ones, killed and resumed."""

from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from defense.objectives import roclip
from defense.objectives.augmented import Augmented
from defense.objectives.roclip import RoClip
from infra.seeding import rng
from tests.support.drawn import drawn
from tests.support.pooled import matched_gradients
from tests.support.several_ranks import on_ranks
from tests.support.stopping import Stopped, stop
from train import checkpoint, loop, matches, model, optim
from train.objective import EVERYTHING, Clock, Features, Loss, Setting
from train.objectives.clip import Clip
from train.presets import Recipe
from train.ranks import Place
from train.training import Finetuning, Pretraining

MATCHED, PLAIN = Clock(13, 1, 10, 0), Clock(3, 0, 10, 0)  # the second epoch, and the first
ROWS = [70, 71, 72, 73, 74]


def unit(label: str, count: int = 5, width: int = 4) -> np.ndarray:
    drawn = rng(0, label).standard_normal((count, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


# Vectors of length 1 that float32 holds exactly, as the pool does: of a hypercube's corners, and the axes.
CORNERS = np.array([[(-0.5, 0.5)[number >> place & 1] for place in range(4)] for number in range(16)])
POOLS = {"captions": np.concatenate([CORNERS[::2], np.eye(4)]), "pictures": np.concatenate([CORNERS[1::2], -np.eye(4)])}


def features(images: np.ndarray, texts: np.ndarray, rows: list[int] = ROWS) -> Features:
    return Features(
        images={"image": torch.tensor(images, requires_grad=True)},
        texts={"text": torch.tensor(texts, requires_grad=True)},
        rows=torch.tensor(rows),
        roles=torch.zeros(len(rows), dtype=torch.int64),
        labels=torch.full((len(rows),), -1),
    )


def filled(what: RoClip) -> nn.Module:
    """Pools of POOLS; what lies at place n has row id 100 + n."""
    state = what.state(Setting(4, 100))
    for kind in state:
        roclip._pools(state, kind)[0].push(torch.tensor(POOLS[kind]), torch.arange(100, 112))
    return state


def ours(
    what: RoClip, state: nn.Module, images: np.ndarray, texts: np.ndarray, clock: Clock = MATCHED
) -> tuple[Loss, list[np.ndarray | None]]:
    given, scale = features(images, texts), torch.tensor(7.5, dtype=torch.float64, requires_grad=True)
    loss = what.loss(given, scale, clock, state)
    loss.total.backward()
    leaves = (given.images["image"], given.texts["text"], scale)
    return loss, [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]


# ------------------------------------------------------------------------------------------ the loss


def ce(queries: np.ndarray, keys: np.ndarray, scale: float) -> float:
    total = 0.0
    for i in range(len(queries)):
        logits = [scale * float(queries[i] @ key) for key in keys]
        total -= logits[i] - np.log(sum(np.exp(logit) for logit in logits))
    return total / len(queries)


def nearest(queries: np.ndarray, kind: str) -> list[int]:
    return [int(np.argmax([query @ entry for entry in POOLS[kind]])) for query in queries]


def by_hand(matching: str, images: np.ndarray, texts: np.ndarray, scale: float = 7.5) -> float:
    """As released: an image with the caption nearest to it. As first described: with the caption nearest to its
    caption, and its caption with the image nearest to it."""

    def clip(left: np.ndarray, right: np.ndarray) -> float:
        return (ce(left, right, scale) + ce(right, left, scale)) / 2

    if matching == "captions":
        return clip(images, POOLS["captions"][nearest(images, "captions")])
    captions, pictures = POOLS["captions"][nearest(texts, "captions")], POOLS["pictures"][nearest(images, "pictures")]
    return (clip(images, captions) + clip(pictures, texts)) / 2


@pytest.mark.parametrize("matching", ["captions", "both"])
def test_the_matched_loss_is_the_papers_in_value_and_gradient(matching):
    what = RoClip(matching=matching, pool_size=12)
    images, texts, step = unit("images"), unit("texts"), 1e-6
    loss, gradients = ours(what, filled(what), images, texts)
    assert float(loss.total.detach()) == pytest.approx(by_hand(matching, images, texts), abs=1e-12)
    for number in range(2):
        if gradients[number] is None:
            assert (matching, number) == ("captions", 1)
            continue
        for place in np.ndindex(images.shape):
            sides = []
            for sign in (1, -1):
                moved = [images.copy(), texts.copy()]
                moved[number][place] += sign * step
                sides.append(by_hand(matching, *moved))
            assert gradients[number][place] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)
    sides = [by_hand(matching, images, texts, 7.5 + sign * step) for sign in (1, -1)]
    assert float(gradients[2]) == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_what_each_pair_was_matched_with_is_told_by_row_id():
    images, texts = unit("images"), unit("texts")
    what = RoClip(pool_size=12)
    found = ours(what, filled(what), images, texts)[0]
    assert {name: ids.tolist() for name, ids in found.matches.items()} == {
        "captions": [100 + place for place in nearest(images, "captions")]
    }
    cosines = (images * POOLS["captions"][nearest(images, "captions")]).sum(axis=1)
    assert float(found.parts["matched_similarity"]) == pytest.approx(np.mean(cosines), abs=1e-6)
    what = RoClip(pool_size=12, matching="both")
    found = ours(what, filled(what), images, texts)[0]
    assert {name: ids.tolist() for name, ids in found.matches.items()} == {
        "captions": [100 + place for place in nearest(texts, "captions")],
        "pictures": [100 + place for place in nearest(images, "pictures")],
    }


def test_a_matched_epoch_gives_no_gradient_to_captions_and_none_to_the_pool():
    what = RoClip(pool_size=12)
    state = filled(what)
    _, (images, texts, scale) = ours(what, state, unit("images"), unit("texts"))
    assert np.abs(images).max() > 0 and abs(float(scale)) > 0 and texts is None
    assert not list(state.parameters())
    assert not any(buffer.requires_grad for buffer in state.buffers())
    assert what.trainable(MATCHED) == {"image", "scale"}
    assert what.trainable(PLAIN) == replace(what, matching="both").trainable(MATCHED) == EVERYTHING


@pytest.mark.parametrize("matching", ["captions", "both"])
def test_an_epoch_that_is_not_matched_is_clip_on_augmented_pairs(matching):
    images, texts = unit("images"), unit("texts")
    what = RoClip(matching=matching, pool_size=12)
    for plain in (Clip(), Augmented()):
        expected, expected_gradients = ours(plain, nn.Module(), images, texts)
        loss, gradients = ours(what, filled(what), images, texts, PLAIN)
        assert torch.equal(loss.total, expected.total) and not loss.matches
        assert all(np.array_equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))


@pytest.mark.parametrize(("match_every", "numbers"), [(1, [1, 2, 3, 4, 5, 6, 7]), (2, [2, 4, 6]), (3, [3, 6]), (8, [])])
def test_matched_epochs_are_those_whose_number_from_1_it_divides(match_every, numbers):
    what = RoClip(match_every=match_every, pool_size=12)
    state = filled(what)
    clocks = {number: Clock(10 * number - 5, number - 1, 10, 0) for number in range(1, 8)}
    told = {number: ours(what, state, unit("images"), unit("texts"), clock)[0] for number, clock in clocks.items()}
    assert [number for number, loss in told.items() if loss.matches] == numbers
    assert [number for number, clock in clocks.items() if what.trainable(clock) != EVERYTHING] == numbers


# ------------------------------------------------------------------------------------------ the pool in a run

BATCH, STEPS, EPOCHS, CAPACITY = 8, 5, 4, 20
FIRST, SECOND = list(range(5, 10)), list(range(15, 20))  # the steps of the matched epochs


def simulated(what: RoClip, parts: int) -> tuple[list[int], list[int]]:
    """Which steps matched, and which pushed. Every match is checked against a list that is kept by hand."""
    state = what.state(Setting(6, 1000))
    listed: list[deque[tuple[int, np.ndarray]]] = [deque(maxlen=CAPACITY) for _ in range(parts)]
    matched, pushed = [], []
    for step in range(STEPS * EPOCHS):
        images, texts = unit(f"images {step}", BATCH, 6), unit(f"texts {step}", BATCH, 6)
        rows = [1000 * step + number for number in range(BATCH)]
        given, clock = features(images, texts, rows), Clock(step, step // STEPS, STEPS, step * BATCH)
        found = what.loss(given, torch.tensor(5.0), clock, state).matches.get("captions")
        mine = [slice(part * BATCH // parts, (part + 1) * BATCH // parts) for part in range(parts)]
        if found is not None:
            matched.append(step)
            for known, part in zip(listed, mine, strict=True):
                for image, row in zip(images[part], found[part].tolist(), strict=True):
                    assert row == max(known, key=lambda entry: float(image @ entry[1]))[0]
        before = [pool.rows.clone() for pool in roclip._pools(state, "captions")]
        what.remember(given, clock, state)
        if any(not torch.equal(a, b.rows) for a, b in zip(before, roclip._pools(state, "captions"), strict=True)):
            pushed.append(step)
            for known, part in zip(listed, mine, strict=True):
                known.extend(zip(rows[part], texts[part], strict=True))
        for known, pool in zip(listed, roclip._pools(state, "captions"), strict=True):
            held = (int(pool.position) - pool.count + torch.arange(pool.count)) % CAPACITY
            assert pool.rows[held].tolist() == [row for row, _ in known]
    return matched, pushed


@pytest.mark.parametrize(
    ("fill", "update", "scope", "matched", "pushed"),
    [
        ("ahead", "matched", "global", [*FIRST, *SECOND], [2, 3, 4, *FIRST, 12, 13, 14, *SECOND]),
        ("wait", "matched", "global", [8, 9, *SECOND], [*FIRST, *SECOND]),
        ("partial", "matched", "global", [6, 7, 8, 9, *SECOND], [*FIRST, *SECOND]),
        ("ahead", "always", "global", [*FIRST, *SECOND], list(range(20))),
        ("wait", "always", "global", [*FIRST, *SECOND], list(range(20))),
        ("partial", "always", "global", [*FIRST, *SECOND], list(range(20))),
        ("ahead", "matched", "rank", [*FIRST, *SECOND], list(range(20))),
        ("wait", "matched", "rank", SECOND, [*FIRST, *SECOND]),
        ("partial", "matched", "rank", [6, 7, 8, 9, *SECOND], [*FIRST, *SECOND]),
    ],
)
def test_a_run_matches_and_remembers_as_its_policies_say(fill, update, scope, matched, pushed, monkeypatch):
    """Whatever they are: what is matched was pushed before, by an earlier step, and is the nearest of the newest 20."""
    parts = 2 if scope == "rank" else 1
    monkeypatch.setattr(roclip.ranks, "here", lambda: Place(0, parts, 0, torch.device("cpu")))
    what = RoClip(pool_size=CAPACITY, pool_fill=fill, pool_update=update, pool_scope=scope)
    assert simulated(what, parts) == (matched, pushed)


def test_a_pool_filled_ahead_is_full_and_fresh_when_its_epoch_begins():
    what = RoClip(pool_size=CAPACITY)
    state = what.state(Setting(4, 1000))
    for step in range(STEPS):
        what.remember(
            features(unit("images"), unit("texts"), [10 * step + n for n in range(5)]), Clock(step, 0, STEPS, 0), state
        )
    assert sorted(roclip._pools(state, "captions")[0].rows.tolist()) == [
        10 * s + n for s in range(1, 5) for n in range(5)
    ]


def test_the_pools_size_is_a_share_of_the_dataset_or_a_number():
    sizes = {
        fields: roclip._pools(RoClip(**dict(fields)).state(Setting(4, 10_800)), "captions")[0].capacity
        for fields in ((), (("pool_share", 0.1),), (("pool_size", 7),), (("pool_share", 1e-9),))
    }
    assert list(sizes.values()) == [216, 1080, 7, 1]


@pytest.mark.parametrize(
    "field", [{"match_every": 0}, {"pool_size": -1}, {"pool_share": 0.0}, {"pool_share": 1.5}, {"crop": 0.0}]
)
def test_fields_that_make_no_sense_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        RoClip(**field)


# ------------------------------------------------------------------------------------------ real runs

WHOLE = RoClip(pool_size=40, search="torch")


def run_of(data: str, out: Path, objective: RoClip = WHOLE, steps: int = 6) -> Pretraining:
    """Four epochs of 6 steps; the second and the fourth are matched."""
    recipe = Recipe(batch=16, epochs=4, lr=3e-3, warmup_steps=3, weight_decay=0.1)
    return Pretraining(
        objective=objective,
        dataset=data,
        out=str(out),
        model="tiny-vit",
        recipe=recipe,
        workers=0,
        checkpoint_steps=steps,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("roclip") / "data")
    drawn(url, 100, 3)
    return url


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> str:
    run = run_of(data, tmp_path_factory.mktemp("roclip") / "whole")
    run.run()
    return run.out


def same(one: str, other: str) -> None:
    """Weights, pool and matches, to the bit."""
    ends = [checkpoint.find(run) for run in (one, other)]
    assert ends[0].read(checkpoint.MODEL) == ends[1].read(checkpoint.MODEL)
    states = [end.read_training()["objective"] for end in ends]
    assert states[0].keys() == states[1].keys() and len(states[0]) == 4
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert matches.read(one).equals(matches.read(other))


def test_the_text_tower_does_not_move_by_a_bit_in_a_matched_epoch_and_the_vision_tower_does(whole):
    """Though it learned before, by AdamW with weight decay, whose momentum would carry it on."""
    before, after = (model.load_run(whole, name).model.state_dict() for name in ("step-0000018", "step-0000024"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    towers = ("transformer", "token_embedding", "positional_embedding", "text_projection", "ln_final")
    assert not [name for name in moved if name.startswith(towers)]
    assert {name for name in before if name.startswith("visual")} == moved - {"logit_scale"}
    assert "logit_scale" in moved
    start = model.create(model.architecture("tiny-vit"), seed=0).state_dict()
    assert not torch.equal(start["text_projection"], before["text_projection"])


def test_a_run_keeps_what_every_pair_of_its_matched_epochs_was_matched_with(whole):
    told = matches.read(whole).to_pydict()
    assert sorted(set(told["step"])) == [*range(7, 13), *range(19, 25)] and set(told["what"]) == {"captions"}
    for epoch in (told["row"][:96], told["row"][96:]):
        assert len(set(epoch)) == len(epoch) == 96
    assert set(told["match"]) <= set(range(100))
    assert sorted(path.name for path in Path(whole, "matches").iterdir()) == [
        "step-0000012.parquet", "step-0000024.parquet"
    ]  # fmt: skip


@pytest.mark.parametrize("step", [9, 12, 23])
def test_killing_and_resuming_in_a_matched_epoch_equals_not_stopping(data, whole, tmp_path, step):
    """With its last checkpoint in the epoch, before it, and at another place in a later one."""
    broken = run_of(data, tmp_path / "broken", steps=8 if step == 9 else 5)
    stop(broken, step)
    broken.run()
    same(broken.out, whole)


def test_matches_after_the_checkpoint_are_dropped_by_a_resumed_run(data, whole, tmp_path, monkeypatch):
    """Killed while the checkpoint of step 10 was written: its part is there, the checkpoint is not."""
    broken, save = run_of(data, tmp_path / "broken", steps=5), checkpoint.save

    def killed(run: str, step: int, *rest: object) -> object:
        if step == 10:
            raise Stopped
        return save(run, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", killed)
        with pytest.raises(Stopped):
            broken.run()
    assert (tmp_path / "broken/matches/step-0000010.parquet").exists()
    replace(broken, checkpoint_steps=8).run()
    assert not (tmp_path / "broken/matches/step-0000010.parquet").exists()
    same(broken.out, whole)


def test_a_run_with_faiss_is_the_one_with_torch_to_the_bit(data, whole, tmp_path):
    pytest.importorskip("faiss")
    run = run_of(data, tmp_path / "faiss", replace(WHOLE, search="faiss-cpu"))
    run.run()
    same(run.out, whole)


def test_pools_of_ranks_resume_on_as_many_ranks_only(data, tmp_path, monkeypatch):
    run = run_of(data, tmp_path / "run", replace(WHOLE, pool_scope="rank"))
    stop(run, 9)
    with monkeypatch.context() as patch:
        place = Place(0, 2, 0, torch.device("cpu"))
        patch.setattr(roclip.ranks, "here", lambda: place)
        job = run.job()
        state, encoder = loop._state(job, place.device), loop._encoder(job, place)
    adamw = optim.adamw([encoder], lr=1.0, weight_decay=0.0, beta1=0.0, beta2=0.0, eps=1.0)
    with pytest.raises(ValueError, match=r"step-0000006 was made on another number of ranks.* start as many as before"):
        loop._resume(job, encoder, state, optim.Update(adamw))


def test_it_finetunes_too(data, whole, tmp_path):
    recipe = Recipe(batch=16, epochs=2, lr=1e-4)
    run = Finetuning(
        objective=replace(WHOLE, matching="both"), dataset=data, pretrained=whole, out=str(tmp_path / "tuned"),
        recipe=recipe, workers=0,
    )  # fmt: skip
    run.run()
    assert set(matches.read(run.out)["what"].to_pylist()) == {"captions", "pictures"}
    assert sorted(set(matches.read(run.out)["step"].to_pylist())) == list(range(7, 13))


def test_two_ranks_learn_what_one_does_in_a_matched_epoch(data):
    """In float64, but for the pool, which holds float32: an entry may be rounded another way."""
    alone = matched_gradients(data)
    for rank in on_ranks(2, matched_gradients, data):
        for matching, steps in alone.items():
            assert rank[matching]["loss"] == pytest.approx(steps["loss"], abs=1e-7)
            for step, (one, other) in enumerate(zip(steps["gradients"], rank[matching]["gradients"], strict=True)):
                assert one.keys() == other.keys()
                assert ("text_projection" in one) == (matching == "both") and "visual.proj" in one, step
                assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-7) for name in one)
                assert float(one["visual.proj"].abs().max()) > 1e-4
