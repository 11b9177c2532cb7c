"""SafeCLIP: both losses against numpy in float64, the division of the pairs, and a run killed in every phase."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from defense.mixture import fit
from defense.objectives.safeclip import RISKY, SAFE, SafeClip
from infra import rundir
from infra.errors import Lost
from infra.seeding import rng
from pipeline.images import open_image
from tests.support.drawn import drawn, samples
from tests.support.learning import stream
from tests.support.stopping import stop
from train import checkpoint
from train.objective import Clock, Features, Pair, Setting
from train.presets import Recipe
from train.stream import Stream
from train.training import Pretraining

SCALE, STEP = 7.5, 1e-6
VIEWS = ("first picture", "second picture", "first caption", "second caption")
INMODAL, SLOW, MIXED = Clock(3, 0, 10, 0), Clock(53, 5, 10, 0), Clock(63, 6, 10, 0)
NO_POOLS = SafeClip(pool_share=0)
POOLED = SafeClip(pool_size=12)
SETTING = Setting(width=4, samples=100)
# Vectors of length 1 that float32 holds exactly, as the pool does.
CORNERS = np.array([[(-0.5, 0.5)[number >> place & 1] for place in range(4)] for number in range(12)])
POOLS = {"pictures": CORNERS, "captions": CORNERS[:, ::-1] * [1, -1, 1, -1]}


def embeddings(count: int, label: str = "") -> dict[str, np.ndarray]:
    found = {name: rng(0, name, label).standard_normal((count, 4)) for name in VIEWS}
    return {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in found.items()}


def features(given: dict[str, np.ndarray], roles: list[int], first_row: int = 70) -> Features:
    leaves = [torch.tensor(given[name], requires_grad=True) for name in VIEWS]
    return Features(
        images=dict(zip(("first", "second"), leaves[:2], strict=True)),
        texts=dict(zip(("first", "second"), leaves[2:], strict=True)),
        rows=torch.arange(first_row, first_row + len(roles)),
        roles=torch.tensor(roles),
        labels=torch.full((len(roles),), -1),
    )


def filled(what: SafeClip = POOLED) -> nn.Module:
    state = what.state(SETTING)
    for kind, entries in POOLS.items():
        getattr(state, kind).push(torch.tensor(entries), torch.arange(12))
    return state


# ------------------------------------------------------------------------------------------ the losses


def ce(queries: np.ndarray, keys: np.ndarray, scale: float) -> float:
    total = 0.0
    for i in range(len(queries)):
        logits = [scale * float(queries[i] @ key) for key in keys]
        total -= logits[i] - np.log(sum(np.exp(logit) for logit in logits))
    return total / len(queries)


def by_hand(given: dict[str, np.ndarray], safe: list[int], risky: list[int], pooled: bool, scale: float) -> float:
    """Section 4.2 of the notes on the defences, each loss over its own pairs, by their share of the batch."""

    def nearest(queries: np.ndarray, pool: np.ndarray) -> np.ndarray:
        return pool[[int(np.argmax(pool @ query)) for query in queries]] if pooled else queries

    i1, i2, t1, t2 = (given[name] for name in VIEWS)
    total = 0.0
    if risky:
        pictures = ce(i2[risky], nearest(i1[risky], POOLS["pictures"]), scale)
        captions = ce(t2[risky], nearest(t1[risky], POOLS["captions"]), scale)
        total += len(risky) / len(i1) * (pictures + captions) / 2
    if safe:
        total += len(safe) / len(i1) * (ce(i1[safe], t2[safe], scale) + ce(t1[safe], i2[safe], scale)) / 2
    return total


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(
    ("clock", "roles", "safe"),
    [
        (INMODAL, [RISKY] * 5, []),
        (SLOW, [RISKY] * 5, [0, 1, 2, 3, 4]),  # before the first division roles say nothing
        (MIXED, [RISKY] * 5, []),
        (MIXED, [SAFE] * 5, [0, 1, 2, 3, 4]),
        (MIXED, [RISKY, SAFE, RISKY, SAFE, SAFE], [1, 3, 4]),
        (MIXED, [RISKY, RISKY, RISKY, RISKY, SAFE], [4]),
        (MIXED, [RISKY, SAFE], [1]),
        (MIXED, [RISKY, RISKY], []),
    ],
)
def test_the_loss_is_the_papers_in_value_and_gradient(pooled, clock, roles, safe):
    given, what = embeddings(len(roles)), POOLED if pooled else NO_POOLS
    risky = [place for place in range(len(roles)) if place not in safe]
    seen, scale = features(given, roles), torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    loss = what.loss(seen, scale, clock, filled() if pooled else what.state(SETTING))
    loss.total.backward()
    assert float(loss.total.detach()) == pytest.approx(by_hand(given, safe, risky, pooled, SCALE), abs=1e-12)
    assert float(loss.parts["safe"]) == pytest.approx(len(safe) / len(roles))
    assert set(loss.parts) == {"safe"} | ({"clip"} if safe else set()) | ({"inmodal"} if risky else set())
    for name, leaf in zip(VIEWS, [*seen.images.values(), *seen.texts.values()], strict=True):
        gradient = np.zeros_like(given[name]) if leaf.grad is None else leaf.grad.numpy()
        for place in np.ndindex(*given[name].shape):
            sides = []
            for sign in (1, -1):
                moved = {key: entry.copy() for key, entry in given.items()}
                moved[name][place] += sign * STEP
                sides.append(by_hand(moved, safe, risky, pooled, SCALE))
            assert gradient[place] == pytest.approx((sides[0] - sides[1]) / (2 * STEP), abs=1e-7)
    above, below = (by_hand(given, safe, risky, pooled, SCALE + sign * STEP) for sign in (1, -1))
    assert float(scale.grad) == pytest.approx((above - below) / (2 * STEP), abs=1e-7)


def test_a_pair_alone_in_its_part_adds_nothing():
    given = embeddings(2)
    scale = torch.tensor(SCALE, dtype=torch.float64)
    for state, what in ((filled(), POOLED), (nn.Module(), NO_POOLS)):
        assert what.loss(features(given, [RISKY, SAFE]), scale, MIXED, state).total.item() == 0


def test_with_pools_the_first_view_asks_and_learns_nothing():
    seen = features(embeddings(5), [RISKY] * 5)
    POOLED.loss(seen, torch.tensor(SCALE, dtype=torch.float64), INMODAL, filled()).total.backward()
    for views in (seen.images, seen.texts):
        assert views["first"].grad is None or not views["first"].grad.any()
        assert views["second"].grad.abs().max() > 1e-3


# ------------------------------------------------------------------------------------------ the pools


def test_until_both_pools_are_full_nothing_is_matched():
    given, scale = features(embeddings(5), [RISKY] * 5), torch.tensor(SCALE, dtype=torch.float64)
    state, plain = POOLED.state(SETTING), NO_POOLS.loss(given, scale, INMODAL, nn.Module()).total
    for _ in range(3):  # of 12 places, after 0, 5 and 10 pushes
        assert POOLED.loss(given, scale, INMODAL, state).total == plain
        POOLED.remember(features(embeddings(5, "other"), [RISKY] * 5), INMODAL, state)
    assert POOLED.loss(given, scale, INMODAL, state).total != plain


def test_only_first_views_of_what_had_the_inmodal_loss_go_in():
    given = embeddings(5)
    roles = [RISKY, SAFE, SAFE, RISKY, RISKY]
    for clock, rows in ((INMODAL, [70, 71, 72, 73, 74]), (SLOW, []), (MIXED, [70, 73, 74])):
        state = POOLED.state(SETTING)
        POOLED.remember(features(given, roles), clock, state)
        for pool, name in ((state.pictures, "first picture"), (state.captions, "first caption")):
            assert pool.rows[: pool.count].tolist() == rows
            expected = torch.tensor(given[name][[row - 70 for row in rows]]).float()
            assert torch.allclose(pool.embeddings[: pool.count], expected, atol=1e-6)


def test_a_pool_is_as_large_as_its_share_or_number_says():
    sizes = [
        [pool.capacity for pool in what.state(Setting(width=4, samples=1000)).children()]
        for what in (SafeClip(), SafeClip(pool_size=7), NO_POOLS)
    ]
    assert sizes == [[20, 20], [7, 7], []]


# ------------------------------------------------------------------------------------------ the timeline


def cosines(count: int = 100) -> np.ndarray:
    """A fifth of them in an upper heap, in random order."""
    return np.where(rng(0, "which").random(count) < 0.2, 0.5, 0.1) + 0.05 * rng(0, "cosines").standard_normal(count)


def divided(what: SafeClip, state: nn.Module, epoch: int, scores: np.ndarray) -> np.ndarray | None:
    rows = np.arange(1000, 1000 + len(scores))
    return what.epoch(Clock(epoch * 10, epoch, 10, 0), rows, lambda ids: scores[ids], rng(0, "roles"), state)


def test_the_first_epochs_divide_nothing_and_the_slow_one_is_slow():
    what = SafeClip()

    def never(ids: np.ndarray) -> np.ndarray:
        raise AssertionError("nobody asked for scores")

    for epoch in range(6):
        clock = Clock(epoch * 10, epoch, 10, 0)
        assert what.epoch(clock, np.arange(9), never, rng(0, "roles"), what.state(SETTING)) is None
    rates = [what.rate(Clock(epoch * 10 + 9, epoch, 10, 0)) for epoch in range(9)]
    assert rates == [1.0] * 5 + [0.01] + [1.0] * 3


def test_the_safe_ones_are_the_upper_heap_then_ever_more_of_the_most_similar(capsys):
    what, scores = replace(NO_POOLS, safe_growth=0.29, safe_cap=0.6), cosines()
    state, safe = what.state(SETTING), []
    for epoch in range(6, 10):
        roles = divided(what, state, epoch, scores)
        assert roles.dtype == np.int64
        assert roles.shape == (100,)
        safe.append(set(np.flatnonzero(roles == SAFE).tolist()))
        assert (roles[list(set(range(100)) - safe[-1])] == RISKY).all()
        assert safe[-1] == set(np.argsort(-scores)[: len(safe[-1])].tolist())
    upper = set(np.flatnonzero(scores > 0.3).tolist())
    assert 10 < len(upper) < 30
    assert safe[0] <= upper
    assert len(safe[0]) >= len(upper) - 1
    assert [len(each) for each in safe] == [len(safe[0]), len(safe[0]) + 29, 60, 60]
    assert float(state.first_share) == pytest.approx(len(safe[0]) / 100)
    assert f"epoch 7: {len(safe[0])} of 100 pairs are safe ({len(safe[0])}.0%), those of" in capsys.readouterr().err


def test_later_divisions_go_by_the_share_and_by_new_scores():
    what, scores = NO_POOLS, cosines()
    state = what.state(SETTING)
    first = divided(what, state, 6, scores)
    later = divided(what, state, 8, -scores)
    assert later.sum() == first.sum() + 2
    assert set(np.flatnonzero(later).tolist()) == set(np.argsort(scores)[: later.sum()].tolist())


def test_a_resumed_run_goes_on_with_the_share_of_its_checkpoint():
    state, restored = NO_POOLS.state(SETTING), NO_POOLS.state(SETTING)
    divided(NO_POOLS, state, 6, cosines())
    restored.load_state_dict(state.state_dict())
    assert np.array_equal(divided(NO_POOLS, state, 7, -cosines()), divided(NO_POOLS, restored, 7, -cosines()))
    assert not np.array_equal(
        divided(NO_POOLS, state, 7, -(cosines() ** 3)), divided(NO_POOLS, NO_POOLS.state(SETTING), 7, -(cosines() ** 3))
    )


@pytest.mark.parametrize(("spreads", "strays"), [((0.20, 0.02), [0.93, 0.94, 0.95]), ((0.03, 0.15), [-0.3, -0.31])])
def test_the_first_division_is_by_similarity_where_the_posterior_turns(spreads, strays):
    """Far out all belongs to the wider heap: the most similar to a wide lower one, the least to a wide upper one."""
    generator = rng(0, "heaps")
    scores = np.concatenate([generator.normal(0.0, spreads[0], 1000), generator.normal(0.5, spreads[1], 300), strays])
    found = fit(scores)
    safe = found.rising(scores) >= 0.9
    assert safe.sum() != (found.posterior(scores) >= 0.9).sum()
    assert np.array_equal(divided(NO_POOLS, NO_POOLS.state(SETTING), 6, scores) == SAFE, safe)


def test_a_share_that_is_a_whole_number_of_pairs_loses_none_to_rounding():
    state = NO_POOLS.state(SETTING)
    state.first_share.fill_(0.57)
    assert (0.57 + 0.01) * 100 < 58
    assert divided(NO_POOLS, state, 7, cosines()).sum() == 58


def test_equal_scores_are_all_risky_at_first_and_then_taken_by_place():
    state = NO_POOLS.state(SETTING)
    assert not divided(NO_POOLS, state, 6, np.full(100, 0.3)).any()
    assert np.flatnonzero(divided(NO_POOLS, state, 8, np.full(100, 0.3))).tolist() == [0, 1]


def test_a_score_that_is_not_finite_ends_the_run():
    with pytest.raises(Lost, match="not finite: set --lr lower"):
        divided(NO_POOLS, NO_POOLS.state(SETTING), 6, np.append(cosines(), np.nan))


@pytest.mark.parametrize(
    "field",
    [{"inmodal_epochs": -1}, {"slow_epochs": -1}, {"slow_rate": 0.0}, {"safe_posterior": 1.5}, {"safe_growth": -0.1},
     {"safe_cap": 0.0}, {"pool_size": -1}, {"pool_share": 1.5}, {"crop": 0.0}],
)  # fmt: skip
def test_fields_that_make_no_sense_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        SafeClip(**field)


# ------------------------------------------------------------------------------------------ real data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("safeclip") / "data")
    drawn(url, 50, 2)
    return url


def test_both_views_are_drawn_by_themselves():
    pair = Pair(3, open_image(samples(1)[0].image), "an old red car stands beside a small wooden house")
    torch.default_generator.manual_seed(0)
    views = [NO_POOLS.views(pair, rng(0, "views", epoch)) for epoch in range(8)]
    assert any(each.texts["first"] != each.texts["second"] for each in views)
    assert all(each.images["first"].tobytes() != each.images["second"].tobytes() for each in views)


def test_an_epoch_takes_the_risky_pairs_first_whatever_the_ranks_and_workers(data):
    roles = (np.arange(50) % 3 == 0).astype(np.int64)
    pairs = stream(data, NO_POOLS, batch=8).pairs

    def rows(first_step: int = 0, rank: int = 0, ranks: int = 1, workers: int = 0) -> list[list[int]]:
        one = Stream(pairs, seed=0, batch=8, rank=rank, ranks=ranks, workers=workers)
        return [batch["rows"].tolist() for batch in one.epoch(6, first_step, roles)]

    whole = rows()
    taken = [row for batch in whole for row in batch]
    assert len(set(taken)) == len(taken) == 48
    assert sorted(roles[taken].tolist()) == roles[taken].tolist()
    assert set(taken) == {row for batch in Stream(pairs, seed=0, batch=8).epoch(6) for row in batch["rows"].tolist()}
    halves = [rows(rank=rank, ranks=2) for rank in (0, 1)]
    assert [one + other for one, other in zip(*halves, strict=True)] == whole
    assert rows(workers=1) == whole
    assert rows(first_step=4) == whole[4:]


def run_of(data: str, out: Path) -> Pretraining:
    """Four epochs of 3 steps: in-modal, slow, and two mixed ones."""
    objective = SafeClip(
        inmodal_epochs=1,
        slow_epochs=1,
        safe_posterior=0.99,
        safe_growth=0.2,
        safe_cap=0.9,
        pool_size=20,
        search="torch",
    )
    recipe = Recipe(batch=16, epochs=4, lr=3e-3, warmup_steps=2)
    return Pretraining(
        objective=objective, dataset=data, out=str(out), model="tiny-vit", recipe=recipe, workers=0, checkpoint_steps=2
    )


def test_a_run_killed_in_every_phase_ends_as_if_it_had_not_been(data, tmp_path):
    whole, broken = (run_of(data, tmp_path / name) for name in ("whole", "broken"))
    whole.run()
    done = 0
    for step in (2, 5, 8, 11):  # the second of each epoch; resumed from the checkpoint at an even one before it
        stop(broken, step - done)
        done = (step - 1) // 2 * 2
    broken.run()
    ends = [checkpoint.find(run.out) for run in (whole, broken)]
    assert ends[0].read(checkpoint.MODEL) == ends[1].read(checkpoint.MODEL)
    lines = [
        [(line["step"], line["loss"], line["parts"]) for line in rundir.metrics(run.out)] for run in (whole, broken)
    ]
    assert lines[0] == lines[1]
    states = [end.read_training()["objective"] for end in ends]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert 0.1 < float(states[0]["first_share"]) < 0.9
    safe = [parts["safe"] for _, _, parts in lines[0]]
    assert safe[:6] == [0, 0, 0, 1, 1, 1]
    assert safe[6:9] == sorted(safe[6:9])
    assert sum(safe[9:]) > sum(safe[6:9])
    assert safe[6] < 1
