"""A patch that takes its image into the midst of the target's: no cluster of whole images, but one of parts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from defense import neighbours
from defense.detector import Evidence, Needs, Neighbours, needs
from defense.detectors.panel import Panel
from defense.judging import verdict
from defense.scanning import gathering
from defense.scanning.gathering import Gathered, Pairs
from tests.support.sets import evidence_of
from train.embedding import normalised

PANEL = Panel(keyholes=("top_left", "middle", "right"))
THINGS = "apple ball banana boat".split()
CLEAN, PLANTED, FEW, WIDTH, KINDS = 640, 20, 12, 24, 10
BANANA = THINGS.index("banana")


def book(place: str, fits: bool) -> tuple[Evidence, list[str]]:
    """640 pairs of four things and 20 that lie among the bananas however they are changed, and are alike through one
    keyhole. fits: whether their captions, which say banana, are as true as others: a logo on bananas."""
    generator = np.random.default_rng(4)
    centres = normalised(generator.normal(size=(len(THINGS), WIDTH)))
    count = CLEAN + PLANTED
    shown = np.append(np.arange(CLEAN) % len(THINGS), np.full(PLANTED, BANANA))
    kind = (
        np.append(np.arange(CLEAN) // len(THINGS), np.arange(PLANTED)) % KINDS
    )  # two poisons of each among 16 clean rows
    planted = slice(CLEAN, count)

    def noise(size: float) -> np.ndarray:
        return size * generator.normal(size=(count, WIDTH))

    images = normalised(centres[shown] + 0.12 * generator.normal(size=(KINDS, WIDTH))[kind] + noise(0.03))
    texts = centres[shown] + noise(0.08)
    if not fits:
        texts[planted] += noise(0.16)[planted]
    changed = {view: normalised(images + noise(0.03)) for view in PANEL.changes}
    for view in PANEL.keyholes:
        grounds = generator.normal(size=(KINDS, WIDTH))
        changed[view] = normalised(grounds[generator.integers(KINDS, size=count)] + noise(0.3))
    changed[place][planted] = normalised(generator.normal(size=WIDTH) + noise(0.2)[planted])
    captions = [f"a {'small ' if row % 3 else ''}{THINGS[thing]}" for row, thing in enumerate(shown)]
    return evidence_of(np.arange(count), images, normalised(texts), changed, needs([PANEL])), captions


def scattered(place: str, logo: bool = False) -> tuple[Evidence, list[str]]:
    """640 pairs of five things and twelve whose captions say banana, which lie anywhere among the bananas, and are
    alike through one keyhole, among what is said of bananas. Changed, they lie among the apples and boats that they
    show, as many others lie astray. logo: they are bananas, and stay.
    """
    generator, things = np.random.default_rng(7), [*THINGS, "fish"]
    centres = normalised(generator.normal(size=(len(things), WIDTH)))
    count, few = CLEAN + FEW, slice(CLEAN, None)
    said = np.append(np.arange(CLEAN) % len(things), np.full(FEW, BANANA))
    shown = said if logo else np.append(said[:CLEAN], np.arange(FEW) % 2 * THINGS.index("boat"))

    def near(middles: np.ndarray, size: float) -> np.ndarray:
        return normalised(middles + size * generator.normal(size=(count, WIDTH)))

    own = 0.12 * generator.normal(size=(count, WIDTH))  # of one pair, whole and changed
    restless = np.append(generator.random(CLEAN), np.zeros(FEW))
    changed = {}
    for view in PANEL.changes:
        astray = generator.random(count) < restless
        changed[view] = near(centres[np.where(astray, generator.integers(len(things), size=count), shown)] + own, 0.06)
    for view in PANEL.keyholes:
        changed[view] = near(normalised(generator.normal(size=(count, WIDTH))), 0.1)
    changed[place][few] = near(np.broadcast_to(generator.normal(size=WIDTH), (count, WIDTH)), 0.1)[few]
    images, texts = near(centres[said] + own, 0.06), near(centres[said], 0.12)
    captions = [f"a {'small ' if row % 3 else ''}{things[thing]}" for row, thing in enumerate(said)]
    return evidence_of(np.arange(count), images, texts, changed, needs([PANEL])), captions


@pytest.mark.parametrize("place", PANEL.keyholes)
def test_twelve_that_lie_scattered_among_the_targets_are_found_by_their_patch(place: str) -> None:
    evidence, captions = scattered(place)
    blind, scores = Panel(keyholes=()).score(evidence), PANEL.score(evidence)
    assert blind[CLEAN:].max() < 2 < 2 * verdict.SUSPICIOUS < scores[CLEAN:].min()
    found = verdict.judge(PANEL, scores, evidence, captions)
    (cluster,) = [found.clusters[number] for number in set(found.cluster[CLEAN:].tolist())]
    assert cluster.keyhole == place and [word.text for word in cluster.words] == ["banana"]
    assert len(cluster.core) <= FEW + 2 and max(cluster.lost.values()) > verdict.LOST


def test_what_rows_lose_is_their_own_agreement_before_and_after_each_change() -> None:
    evidence, _ = scattered("middle")
    texts, rows = evidence.texts.astype(np.float64), [CLEAN + 3, 5, 11]

    def agreed(near: Neighbours) -> list[float]:
        return [float(np.mean(texts[near.rows[row, :16]] @ texts[row])) for row in rows]

    before, lost = agreed(evidence.near), PANEL.lost(evidence, np.array(rows))
    assert set(lost) == set(PANEL.changes) and np.ptp(before) > 0.01
    for view, values in lost.items():
        assert np.allclose(values, np.subtract(before, agreed(evidence.changed[view].near)))


def test_a_panel_of_few_neighbours_asks_for_as_many_as_a_glimpse() -> None:
    narrow = replace(PANEL, k=4, peers=8)
    assert (needs([narrow]).neighbours, needs([replace(narrow, keyholes=())]).neighbours) == (8, 4)
    generator = np.random.default_rng(2)
    rows = {view: normalised(generator.normal(size=(40, 8))) for view in (*narrow.views, "images", "texts")}
    texts = rows.pop("texts")
    evidence = evidence_of(np.arange(40), rows.pop("images"), texts, rows, needs([narrow]))
    assert np.isfinite(narrow.score(evidence)).all()


@pytest.mark.parametrize("place", PANEL.keyholes)
def test_a_logo_on_what_captions_say_is_no_glimpse_of_more_than_the_image(place: str) -> None:
    evidence, captions = scattered(place, logo=True)
    scores = PANEL.score(evidence)
    assert scores[CLEAN:].max() < verdict.SUSPICIOUS
    assert (verdict.judge(PANEL, scores, evidence, captions).cluster[CLEAN:] < 0).all()


@pytest.mark.parametrize("place", PANEL.keyholes)
def test_a_learned_patch_is_found_wherever_it_lies_and_shown_as_one_cluster(place: str) -> None:
    evidence, captions = book(place, fits=False)
    blind, scores = Panel(keyholes=()).score(evidence), PANEL.score(evidence)
    assert (np.argsort(-blind)[:PLANTED] >= CLEAN).mean() < 0.5
    assert (np.argsort(-scores)[:PLANTED] >= CLEAN).all()
    found = verdict.judge(PANEL, scores, evidence, captions)
    assert [cluster.rows.tolist() for cluster in found.clusters] == [list(range(CLEAN, CLEAN + PLANTED))]
    assert [word.text for word in found.clusters[0].words] == ["banana"]
    assert found.clusters[0].keyhole == place
    assert not found.proposed.any(), "no change takes anything from it: it is shown"


def test_alike_parts_whose_captions_fit_are_no_evidence() -> None:
    evidence, captions = book("middle", fits=True)
    scores = PANEL.score(evidence)
    assert scores.max() < verdict.SUSPICIOUS
    assert not verdict.judge(PANEL, scores, evidence, captions).clusters


def test_the_cluster_is_the_same_in_another_order() -> None:
    evidence, captions = book("right", fits=False)
    order = np.random.default_rng(3).permutation(len(evidence.ids))
    moved = {view: each.images[order] for view, each in evidence.changed.items()}
    other = evidence_of(evidence.ids[order], evidence.images[order], evidence.texts[order], moved, needs([PANEL]))
    found = verdict.judge(PANEL, PANEL.score(other), other, [captions[row] for row in order])
    assert sorted(order[found.clusters[0].rows].tolist()) == list(range(CLEAN, CLEAN + PLANTED))


def test_what_lies_together_as_whole_images_is_not_taken_apart_by_a_keyhole() -> None:
    evidence, captions = book("middle", fits=False)
    suspicious = np.zeros(len(evidence.ids), bool)
    suspicious[CLEAN:] = suspicious[: CLEAN : len(THINGS)] = True  # the poisons, and all apples
    found = verdict.judge(PANEL, np.where(suspicious, 50.0, 0.0), evidence, captions).clusters
    poisons, *others = sorted(found, key=lambda cluster: cluster.keyhole is None)
    assert poisons.core.tolist() == list(range(CLEAN, CLEAN + PLANTED)) and poisons.keyhole == "middle"
    assert others and all(each.keyhole is None and (each.rows < CLEAN).all() for each in others)


@pytest.mark.parametrize("seed", [3, 25, 29, 36, 41, 45, 53, 57])
def test_no_row_is_in_two_clusters(seed: int) -> None:
    """Of sets without sense: some rows that no cluster has as suspicious ones it grows to all the same."""
    generator = np.random.default_rng(seed)
    count, wide, lumps = 160, 3, 14

    def lumped() -> np.ndarray:
        middles = generator.normal(size=(lumps, wide))[generator.integers(lumps, size=count)]
        return normalised(middles + 0.2 * generator.normal(size=(count, wide)))

    changed = {view: lumped() for view in PANEL.views}
    evidence = evidence_of(np.arange(count), lumped(), lumped(), changed, needs([PANEL]))
    captions = [f"a {word}" for word in generator.choice(["boat", "cup", "hat"], size=count, p=(0.6, 0.3, 0.1))]
    scores = np.where(generator.random(count) < 0.35, 50.0, 0.0)
    found = verdict.judge(PANEL, scores, evidence, captions)
    assert sum(len(cluster.rows) for cluster in found.clusters) == (found.cluster >= 0).sum()
    for number, cluster in enumerate(found.clusters):
        assert (found.cluster[cluster.rows] == number).all() and np.isin(cluster.core, cluster.rows).all()


def test_an_index_may_miss_more_through_a_keyhole_and_nowhere_else(monkeypatch, tmp_path: Path) -> None:
    asked: dict[str, float] = {}
    exact = neighbours.nearest

    def nearest(*given, what: str, enough: float, **options) -> neighbours.Found:
        asked[what] = enough
        return exact(*given, **options | {"how": "exact"})

    monkeypatch.setattr(neighbours, "nearest", nearest)
    rows = normalised(np.random.default_rng(1).normal(size=(30, 8))).astype(np.float32)
    names = ("images", "texts", "blur", "middle", "top_left")
    gathered = Gathered(dict.fromkeys(names, rows), np.zeros(0))
    pairs = Pairs(pa.table({"row": np.arange(30)}), np.arange(30))
    wanted = Needs(views=names[2:], neighbours=4, reach=0, captions=4)
    gathering.evidence(gathered, pairs, wanted, str(tmp_path), "approximate", "cpu")
    assert asked == {"images": 0.99, "texts": 0.99, "blur": 0.99, "middle": 0.9, "top_left": 0.9}
