"""What a model that never learned from a cluster says of it: by sets made from a seed, and by small arrays."""

from dataclasses import replace

import numpy as np
import pytest

from defense import neighbours, verdict
from defense.scanning import testimony
from defense.scanning.testimony import PLAIN
from defense.verdict import Cluster, Verdict, Word
from tests.support.scenes import CLEAN, PANEL, PLANTED, THINGS, WIDTH, scene
from tests.support.sets import distances_of
from train.embedding import normalised

ALL = np.arange(CLEAN, CLEAN + PLANTED)


def judged(kind: str) -> tuple[Verdict, list[str]]:
    evidence, captions = scene(kind)
    scores = np.where(np.isin(evidence.ids, ALL), 50.0, 0.0)
    return verdict.judge(PANEL, scores, evidence, captions), captions


def seen(kind: str, captions: list[str], left_out: np.ndarray = ALL) -> testimony.Testimony:
    """By a model that did not learn from `left_out`: every image lies where what it shows lies, trigger or not."""
    generator = np.random.default_rng(7)
    centres = normalised(generator.normal(size=(len(THINGS), WIDTH)))
    shown = np.arange(len(captions)) % len(THINGS)
    if kind in ("brand", "blurred", "copies"):
        shown[ALL] = THINGS.index("banana")
    rows = centres[shown]

    def lying(amount: float) -> np.ndarray:
        return normalised(rows + amount * generator.normal(size=rows.shape))

    changed = {view: lying(0.15)[ALL] for view in PANEL.views}
    return testimony.Testimony(~np.isin(np.arange(len(captions)), left_out), lying(0.12), ALL, changed)


def heard(kind: str) -> tuple[Verdict, Verdict]:
    """What the run says alone, and by the witness."""
    found, captions = judged(kind)
    return found, testimony.heard(found, seen(kind, captions, np.flatnonzero(found.cluster >= 0)), captions, PANEL.k)


def test_poisons_that_no_change_breaks_are_convicted_by_a_witness() -> None:
    alone, found = heard("stripes")
    assert not alone.proposed.any(), "as of sig on the book of seed 1"
    assert max(alone.clusters[0].lost.values()) < verdict.LOST
    assert np.flatnonzero(found.proposed).tolist() == ALL.tolist()
    cluster = found.clusters[0]
    assert (cluster.planted, cluster.witness) == (True, "untrue")
    assert set(cluster.words[0].witness) == {PLAIN, *PANEL.views} and max(cluster.words[0].witness.values()) < 0.1
    assert cluster.words[0].stays == alone.clusters[0].words[0].stays


def test_a_brand_that_a_run_does_not_know_when_changed_is_cleared_by_a_witness() -> None:
    alone, found = heard("blurred")
    assert np.flatnonzero(alone.proposed).tolist() == ALL.tolist(), "as of book 213"
    assert not found.proposed.any()
    assert (found.clusters[0].planted, found.clusters[0].witness) == (False, "true")
    told = {word.text: min(word.witness.values()) for word in found.clusters[0].words}
    assert told["banana"] > 0.9 and told["acme"] == 0


@pytest.mark.parametrize(("kind", "said"), [("poison", "untrue"), ("brand", "true"), ("copies", "true")])
def test_a_witness_agrees_where_the_run_is_right(kind: str, said: str) -> None:
    alone, found = heard(kind)
    assert found.clusters[0].witness == said
    assert found.proposed.any() == alone.proposed.any() == (said == "untrue")


def test_of_a_logo_that_aims_at_nothing_a_witness_is_not_asked_for_a_word() -> None:
    alone, found = heard("logo")
    assert not found.proposed.any() and not alone.proposed.any()
    assert found.clusters[0].witness is None


def test_a_witness_that_learned_from_a_cluster_is_not_asked_about_it() -> None:
    for kind in ("stripes", "blurred"):
        alone, captions = judged(kind)
        found = testimony.heard(alone, seen(kind, captions, ALL[1:]), captions, PANEL.k)
        assert (found.proposed == alone.proposed).all()
        assert found.clusters[0].witness == "learned" and found.clusters[0].words == alone.clusters[0].words


def test_a_set_without_clusters_has_the_same_verdict() -> None:
    evidence, captions = scene("nothing")
    alone = verdict.judge(PANEL, np.zeros(len(captions)), evidence, captions)
    none = testimony.Testimony(
        np.ones(len(captions), bool), evidence.images, ALL[:0], dict.fromkeys(PANEL.views, ALL[:0])
    )
    found = testimony.heard(alone, none, captions, PANEL.k)
    assert found.clusters == () and not found.proposed.any()


# -------------------------------------------------------------------------------------------- by hand

NORTH, EAST, SOUTH = np.eye(3, dtype=np.float32)


def by_hand(changed: list[np.ndarray], learned: list[bool] | None = None) -> Verdict:
    """Four cars in the north, four bananas in the east; a cluster of two that say banana, whose images lie in the
    north, and, changed, where is said; another of two that say banana in the north, of which nobody may speak."""
    rows = np.stack([NORTH] * 4 + [EAST] * 4 + [NORTH] * 4)
    captions = ["a car"] * 4 + ["a banana"] * 8

    def cluster(*places: int) -> Cluster:
        word = Word("banana", 1.0, 4, 3.0, {"blur": 1.0})
        return Cluster(np.array(places), np.array(places), 2, (word,), verdict.STRONG, {"blur": 0.0})

    alone = verdict.arranged([cluster(8, 9), cluster(10, 11)], 12)
    told = np.array(learned or [True] * 8 + [False] * 2 + [True] * 2)
    return testimony.heard(
        alone, testimony.Testimony(told, rows, np.array([8, 9]), {"blur": np.stack(changed)}), captions, 4
    )


def test_rows_of_other_clusters_and_what_it_did_not_learn_are_not_among_the_neighbours() -> None:
    first, other = by_hand([NORTH, NORTH]).clusters
    assert first.words[0].witness == {PLAIN: 0.0, "blur": 0.0} and first.planted
    assert (other.witness, other.planted) == ("learned", False)
    kept = by_hand([EAST, EAST], [False] * 4 + [True] * 4 + [False] * 2 + [True] * 2).clusters[0]
    assert kept.words[0].witness == {PLAIN: 1.0, "blur": 1.0}, "it knows bananas alone, and no car"


def test_the_view_that_leaves_least_counts() -> None:
    """A witness that learned from poisons that lie in no cluster still takes plain ones for their target."""
    rows = by_hand([NORTH, NORTH]).clusters[0]
    fooled = replace(rows.words[0], witness={PLAIN: 1.0, "blur": 0.1})
    assert not testimony.is_true(fooled)
    assert testimony.is_true(replace(fooled, witness={PLAIN: 1.0, "blur": testimony.TRUE}))


def test_who_learned_from_suspicious_rows_alone_is_not_asked() -> None:
    found = by_hand([NORTH, NORTH], [False] * 10 + [True] * 2)
    assert [cluster.witness for cluster in found.clusters] == ["learned", "learned"]


def test_the_nearest_among_others_are_those_of_all_distances() -> None:
    generator = np.random.default_rng(3)
    rows, asked = (normalised(generator.normal(size=(count, 8))) for count in (70, 20))
    rows[40:60] = rows[:20]
    apart = distances_of(np.concatenate([asked, rows]))[:20, 20:]
    expected = np.stack([np.lexsort((np.arange(70), line)) for line in apart])
    for keep in (1, 5, 70, 100):
        assert (neighbours.among(rows, asked, keep) == expected[:, :keep]).all()
