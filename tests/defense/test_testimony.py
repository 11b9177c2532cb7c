"""What a model that never learned from a cluster says of it: by sets made from a seed, and by small arrays."""

from dataclasses import replace

import numpy as np
import pytest

from defense import neighbours
from defense.detectors import clipscore
from defense.judging import testimony, verdict
from defense.judging.captions import Word
from defense.judging.testimony import Sight
from defense.judging.verdict import Cluster, Verdict
from tests.support.scenes import CLEAN, PANEL, PLANTED, THINGS, WIDTH, scene
from tests.support.sets import distances_of
from train.embedding import normalised

ALL = np.arange(CLEAN, CLEAN + PLANTED)
NORTH, EAST, SOUTH = np.eye(3, dtype=np.float32)


def judged(kind: str) -> tuple[Verdict, list[str]]:
    evidence, captions = scene(kind)
    scores = np.where(np.isin(evidence.ids, ALL), 50.0, 0.0)
    return verdict.judge(PANEL, scores, evidence, captions), captions


def sight(kind: str, captions: list[str], learned: np.ndarray) -> Sight:
    """Of a model that did not learn from the last: every image lies where what it shows lies, trigger or not; every
    caption where what it says does."""
    generator = np.random.default_rng(7)
    centres = normalised(generator.normal(size=(len(THINGS), WIDTH)))
    shown = np.arange(len(captions)) % len(THINGS)
    if kind in ("brand", "blurred", "copies"):
        shown[ALL] = THINGS.index("banana")
    seen = normalised(centres[shown] + 0.12 * generator.normal(size=(len(captions), WIDTH)))
    said = np.array([next((THINGS.index(word) for word in THINGS if word in text), 0) for text in captions])
    return Sight(seen, clipscore.unfit(seen, centres[said].astype(np.float32)), learned)


def asked(kind: str, left_out: np.ndarray | None = None) -> tuple[Verdict, Verdict]:
    """What the run says alone, and by a witness that learned from all but `left_out`, if not the clusters."""
    found, captions = judged(kind)
    gone = np.flatnonzero(found.cluster >= 0) if left_out is None else left_out
    learned = ~np.isin(np.arange(len(captions)), gone)
    return found, testimony.heard(found, sight(kind, captions, learned), captions, PANEL.k)


def test_poisons_that_no_change_breaks_are_convicted_by_a_witness() -> None:
    alone, found = asked("stripes")
    assert not alone.proposed.any(), "as of sig on the book of seed 1"
    assert max(alone.clusters[0].lost.values()) < verdict.LOST
    cluster = found.clusters[0]
    assert np.flatnonzero(found.proposed).tolist() == cluster.rows.tolist()
    assert cluster.rows[-PLANTED:].tolist() == ALL.tolist(), "and a banana that fits worse than most"
    assert len(cluster.rows) == PLANTED + cluster.followers == PLANTED + 1
    assert (cluster.planted, cluster.witness) == (True, "untrue")
    assert [(word.text, word.witness) for word in cluster.words] == [("banana", 0.0)]
    assert cluster.words[0].stays == alone.clusters[0].words[0].stays


def test_a_witness_convicts_a_cluster_that_is_too_weak_for_the_run_alone() -> None:
    """Of a learned patch, whose poisons are few and alike in one part only."""
    found, captions = judged("poison")
    weak = replace(found.clusters[0], strength=verdict.STRONG / 2)
    assert found.clusters[0].planted and not verdict.planted(weak)
    asked = verdict.arranged([replace(weak, planted=False)], len(captions))
    learned = ~np.isin(np.arange(len(captions)), ALL)
    told = testimony.heard(asked, sight("poison", captions, learned), captions, PANEL.k)
    assert np.flatnonzero(told.proposed)[-PLANTED:].tolist() == ALL.tolist()


def found_in_part(kind: str, alone: np.ndarray, learned: np.ndarray | None = None) -> tuple[Verdict, Verdict]:
    """The verdict of a scan that found these rows of ALL alone, and by a witness that learned from the others."""
    found, captions = judged(kind)
    first = replace(found.clusters[0], rows=alone, core=alone, reached=len(alone))
    part = verdict.arranged([first], len(captions))
    learned = ~np.isin(np.arange(len(captions)), alone) if learned is None else learned
    return part, testimony.heard(part, sight(kind, captions, learned), captions, PANEL.k)


def test_the_rest_of_the_attack_follows_a_convicted_cluster() -> None:
    part, found = found_in_part("poison", ALL[:20])
    shown_as_said = [row for row in ALL.tolist() if THINGS[row % len(THINGS)] == "banana"]
    rest = [row for row in ALL[20:].tolist() if row not in shown_as_said]
    assert np.flatnonzero(part.proposed).tolist() == ALL[:20].tolist()
    cluster = found.clusters[0]
    assert cluster.followers == len(rest) == 9
    assert cluster.rows.tolist() == [*ALL[:20].tolist(), *rest] == np.flatnonzero(found.proposed).tolist()
    assert cluster.core.tolist() == ALL[:20].tolist()


def test_nothing_follows_a_cluster_that_is_cleared_or_was_not_asked_about() -> None:
    for kind, learned in (("brand", None), ("copies", None), ("poison", np.ones(CLEAN + PLANTED, bool))):
        part, found = found_in_part(kind, ALL[:20], learned)
        assert found.clusters[0].witness == ("true" if learned is None else "learned")
        assert (found.cluster == part.cluster).all() and found.clusters[0].followers == 0


def test_two_in_a_hundred_of_what_a_witness_learned_from_fit_ill() -> None:
    ordinary = np.linspace(0.51, 0.99, 49)
    assert (ordinary > testimony.ill_beyond(ordinary)).sum() == 1
    assert (np.arange(1000.0) > testimony.ill_beyond(np.arange(1000.0))).sum() == 20
    assert testimony.ill_beyond(np.empty(0)) == np.inf, "a witness that knows nothing finds nothing ill"


def test_a_follower_says_the_word_and_fits_ill_and_lies_in_no_cluster() -> None:
    ill = np.isin(np.arange(101), [7, 99, 100])
    free = np.arange(101) < 100
    says = [frozenset({"banana", "a"} if row % 3 else {"car", "a"}) for row in range(101)]
    assert testimony.followers("banana", ill, free, says).tolist() == [7], "100 lies in a cluster"
    assert testimony.followers("car", ill, free, says).tolist() == [99]
    assert testimony.followers("a", ill, free, says).tolist() == [7, 99]
    assert testimony.followers("pear", ill, free, says).tolist() == []


def test_a_brand_that_a_run_does_not_know_when_changed_is_cleared_by_a_witness() -> None:
    alone, found = asked("blurred")
    assert np.flatnonzero(alone.proposed).tolist() == ALL.tolist(), "as of book 213, by the verdict of then"
    assert not found.proposed.any()
    assert (found.clusters[0].planted, found.clusters[0].witness) == (False, "true")
    assert found.clusters[0].alone is True, "which is to be said: a deceived witness clears poisons"
    assert {word.text: word.witness for word in found.clusters[0].words} == {"banana": 1.0, "acme": 0.0, "by": 0.0}


@pytest.mark.parametrize(("kind", "said"), [("poison", "untrue"), ("brand", "true"), ("copies", "true")])
def test_a_witness_agrees_where_the_run_is_right(kind: str, said: str) -> None:
    alone, found = asked(kind)
    assert found.clusters[0].witness == said
    assert found.proposed.any() == alone.proposed.any() == (said == "untrue")


def test_of_a_logo_that_aims_at_nothing_a_witness_is_not_asked_for_a_word() -> None:
    alone, found = asked("logo")
    assert not found.proposed.any() and not alone.proposed.any()
    assert found.clusters[0].witness is None


def test_a_witness_that_learned_from_a_cluster_is_not_asked_about_it() -> None:
    for kind in ("stripes", "blurred"):
        alone, found = asked(kind, ALL[1:])
        assert (found.proposed == alone.proposed).all()
        assert found.clusters[0].witness == "learned" and found.clusters[0].words == alone.clusters[0].words


def test_a_set_without_clusters_has_the_same_verdict() -> None:
    evidence, captions = scene("nothing")
    alone = verdict.judge(PANEL, np.zeros(len(captions)), evidence, captions)
    every = np.ones(len(captions), bool)
    found = testimony.heard(alone, Sight(evidence.images, np.zeros(len(captions)), every), captions, PANEL.k)
    assert found.clusters == () and not found.proposed.any()


# -------------------------------------------------------------------------------------------- by hand


def by_hand(learned: list[bool], k: int = 4, unfit: float = 9.0) -> tuple[Cluster, Cluster]:
    """Four cars in the north, four bananas in the east; a cluster of two that say banana, in the north, and another
    of as many there. unfit: how ill these captions fit; the others do from 0 to 7."""
    rows = np.stack([NORTH] * 4 + [EAST] * 4 + [NORTH] * 4)
    captions = ["a car"] * 4 + ["a banana"] * 8

    def cluster(*places: int) -> Cluster:
        word = Word("banana", 1.0, 4, 3.0, {"blur": 1.0})
        return Cluster(np.array(places), np.array(places), 2, (word,), verdict.STRONG, {"blur": 0.0})

    alone = verdict.arranged([cluster(8, 9), cluster(10, 11)], 12)
    first, other = testimony.heard(
        alone, Sight(rows, np.array([*range(8), *[unfit] * 4], float), np.array(learned)), captions, k
    ).clusters
    return first, other


def test_rows_of_other_clusters_and_what_it_did_not_learn_are_not_among_the_neighbours() -> None:
    first, other = by_hand([True] * 8 + [False] * 2 + [True] * 2)
    assert (first.words[0].witness, first.witness, first.planted) == (0.0, "untrue", True)
    assert (other.words[0].witness, other.witness, other.planted) == (None, "learned", False)
    first, other = by_hand([False] * 4 + [True] * 4 + [False] * 2 + [True] * 2)
    assert (first.words[0].witness, first.witness) == (1.0, "true"), "it knows bananas alone, and no car"


def test_a_third_of_true_captions_is_enough() -> None:
    """Poisons that lie in no cluster and that it did learn from may so clear the others: these are shown."""
    for known, said in (((0, 1, 2, 3, 4), "untrue"), ((0, 1, 4), "true")):
        learned = np.isin(np.arange(12), known).tolist()
        assert by_hand(learned, k=len(known))[0].witness == said
    assert not testimony.is_true(Word("banana", 1.0, 4, 3.0))


def test_odd_images_whose_captions_fit_are_natural_though_few_around_say_the_word() -> None:
    """Mushrooms that a run found suspicious, beside poisons of wanet: 22% of what lay around said so."""
    learned = [True] * 8 + [False] * 2 + [True] * 2
    for unfit, better, said in ((9.0, 1.0, "untrue"), (6.5, 7 / 8, "true"), (-1.0, 0.0, "true")):
        cluster = by_hand(learned, unfit=unfit)[0]
        assert (cluster.better, cluster.witness, cluster.planted) == (better, said, said == "untrue")
        assert cluster.words[0].witness == 0.0


def test_who_learned_from_suspicious_rows_alone_is_not_asked() -> None:
    assert [cluster.witness for cluster in by_hand([False] * 10 + [True] * 2)] == ["learned", "learned"]


def test_the_nearest_among_others_are_those_of_all_distances() -> None:
    generator = np.random.default_rng(3)
    rows, given = (normalised(generator.normal(size=(count, 8))) for count in (70, 20))
    rows[40:60] = rows[:20]
    apart = distances_of(np.concatenate([given, rows]))[:20, 20:]
    expected = np.stack([np.lexsort((np.arange(70), line)) for line in apart])
    for keep in (1, 5, 70, 100):
        assert (neighbours.among(rows, given, keep) == expected[:, :keep]).all()
