from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from defense import density
from defense.detector import Detector, Evidence, Neighbours, needs
from defense.detectors.gap import Gap
from defense.detectors.glimpse import Glimpse
from defense.detectors.keyhole import Keyhole
from defense.detectors.panel import ENOUGH, ORDINARY, Panel, evident
from defense.judging import clustering, verdict
from defense.judging.captions import Word, common_words, words_of
from tests.support.scenes import CLEAN, PANEL, PLANTED, THINGS, WIDTH, scene
from tests.support.sets import evidence_of
from train.embedding import normalised


def judged(kind: str) -> verdict.Verdict:
    evidence, captions = scene(kind)
    return verdict.judge(PANEL, PANEL.score(evidence), evidence, captions)


def test_poisons_are_proposed_all_of_them_and_nothing_else_and_their_word_is_named() -> None:
    found = judged("poison")
    assert np.flatnonzero(found.proposed).tolist() == list(range(CLEAN, CLEAN + PLANTED))
    cluster = found.clusters[0]
    assert cluster.planted and (found.cluster[cluster.rows] == 0).all()
    assert [word.text for word in cluster.words] == ["banana"]
    assert cluster.words[0].share == 1 and cluster.words[0].elsewhere == CLEAN // len(THINGS)
    assert max(cluster.lost.values()) > 0.6


@pytest.mark.parametrize("kind", ["logo", "brand", "dim", "copies"])
def test_a_benign_cluster_is_shown_and_not_removed(kind: str) -> None:
    found = judged(kind)
    assert not found.proposed.any()
    shown = set(np.concatenate([cluster.rows for cluster in found.clusters]).tolist())
    assert len(shown & set(range(CLEAN, CLEAN + PLANTED))) >= 0.9 * PLANTED


def test_a_word_is_followed_to_the_neighbours_of_changed_images() -> None:
    evidence, captions = scene("brand")
    words = {word.text: word for word in judged("brand").clusters[0].words}
    assert set(words) == {"acme", "by", "banana"}
    assert words["acme"].usual == words["acme"].stays == {}, "nobody else says it"
    others = [row for row in range(CLEAN) if "banana" in captions[row]]
    for rows, shares in ((range(CLEAN, len(captions)), words["banana"].stays), (others, words["banana"].usual)):
        assert set(shares) == set(PANEL.changes), "nothing is asked of parts of images"
        for view in PANEL.changes:
            near = evidence.changed[view].near.rows[list(rows), : PANEL.k]
            outside = [captions[row].split() for row in near[near < CLEAN].tolist()]
            assert shares[view] == np.mean(["banana" in said for said in outside])
    assert words["banana"].remains and not words["acme"].remains


def test_poisons_that_stay_among_their_own_are_judged_by_those_that_do_not() -> None:
    """As of sig: a change leaves most of its images where they are, among captions that say the word untruly."""
    says = np.array([True] * 4 + [False] * 4 + [True, False] * 4)
    near = np.array([[1, 2, 4], [0, 3, 5], [0, 1, 8], [0, 1, 2]])
    outside = np.arange(16) > 3
    assert verdict.told_of(says, near, outside) == 1 / 3, "of 4, 5 and 8"
    assert verdict.told_of(says, near[3:], outside) == 0, "none is outside"
    vocabulary = [frozenset({"banana"} if each else {"car"}) for each in says]
    rows = np.arange(4)
    cluster = verdict.Cluster(rows, rows, 4, (), 100.0, {})
    word, ordinary = Word("banana", 1.0, 4, 1.0), np.arange(16) > 3
    apart = {"blur": np.concatenate([np.tile([4, 5, 6, 10], (4, 1)), np.tile([8, 10, 12, 14], (12, 1))])}
    kept = {"crop": np.concatenate([np.tile([1, 2, 3, 10], (4, 1)), np.tile([8, 10, 12, 14], (12, 1))])}
    told = verdict.followed(word, cluster, apart | kept, vocabulary, ordinary)
    assert (told.stays, told.usual, told.remains) == ({"blur": 0.25}, {"blur": 1.0}, False), "crop leaves them within"
    weak = {"blur": np.concatenate([np.tile([4, 5, 6, 10], (4, 1)), np.tile([4, 5, 6, 8], (12, 1))])}
    told = verdict.followed(word, cluster, weak, vocabulary, ordinary)
    assert told.usual == {}, "a third of all others say it anyway"
    assert not told.remains, "and no change tells"


@pytest.mark.parametrize(("stays", "remains"), [(0.39, True), (0.22, True), (0.12, False), (0.03, False)])
def test_a_word_that_is_said_half_as_often_as_around_others_is_true(stays: float, remains: bool) -> None:
    usual = {"blur": 0.43, "crop": 0.6}
    assert Word("apple", 1.0, 900, 1.0, {"blur": stays, "crop": 0.6}, usual).remains == remains


def test_a_clean_set_is_accused_of_nothing() -> None:
    found = judged("nothing")
    assert not found.proposed.any() and not any(cluster.planted for cluster in found.clusters)


def strays(evidence: Evidence, captions: list[str], count: int) -> tuple[Evidence, list[str]]:
    """As many clean cups, fish and hats more, after the others: they lie among the last 30 until they are changed."""
    places = np.flatnonzero(np.isin(np.arange(CLEAN) % len(THINGS), (4, 5, 6)))[:count]
    generator = np.random.default_rng(4)
    held = evidence.images[-PLANTED:].mean(axis=0) + 0.04 * generator.normal(size=(count, WIDTH))
    changed = {view: np.concatenate([each.images, each.images[places]]) for view, each in evidence.changed.items()}
    more = evidence_of(
        np.arange(len(captions) + count),
        np.concatenate([evidence.images, normalised(held)]),
        np.concatenate([evidence.texts, evidence.texts[places]]),
        changed,
        needs([PANEL]),
    )
    return more, captions + [captions[place] for place in places]


def test_clean_rows_among_poisons_neither_hide_their_word_nor_are_removed() -> None:
    evidence, captions = scene("poison")
    poisons = np.arange(CLEAN, CLEAN + PLANTED)
    for row in poisons[:3]:
        captions[row] = "a small cup"
    evidence, captions = strays(evidence, captions, 9)
    scores = np.where(np.isin(evidence.ids, poisons), 50.0, 0.0)
    has = ["banana" in caption for caption in captions[CLEAN:]]
    grown = clustering.grown(np.where(scores > 0, 0, -1), evidence.near, clustering.LINKS)
    assert (grown[CLEAN:] == 0).all() and (grown[:CLEAN] < 0).all()
    assert np.mean(has[:PLANTED]) == 0.9 and 0.65 < np.mean(has) < 0.7, "of the core, and of all it grows to"
    found = verdict.judge(PANEL, scores, evidence, captions)
    assert np.flatnonzero(found.proposed).tolist() == poisons.tolist()
    assert [(word.text, word.share) for word in found.clusters[0].words] == [("banana", 0.9)]
    assert found.clusters[0].words[0].elsewhere == CLEAN // len(THINGS), "of the clean bananas"


def test_a_poison_that_is_not_suspicious_is_removed_for_what_it_says() -> None:
    evidence, captions = scene("poison")
    scores = np.zeros(len(captions))
    scores[CLEAN : CLEAN + PLANTED - 5] = 50.0
    assert verdict.judge(PANEL, scores, evidence, captions).proposed.nonzero()[0].tolist() == [
        *range(CLEAN, len(captions))
    ]
    captions[-1] = "a plantain"
    assert verdict.judge(PANEL, scores, evidence, captions).proposed.nonzero()[0].tolist() == [
        *range(CLEAN, len(captions) - 1)
    ]


def test_a_logo_of_which_only_some_are_suspicious_still_aims_at_nothing() -> None:
    evidence, captions = scene("logo")
    scores = np.zeros(len(captions))
    scores[CLEAN : CLEAN + PLANTED // 2] = 50.0
    found = verdict.judge(PANEL, scores, evidence, captions)
    assert not found.proposed.any()
    assert len(found.clusters[0].rows) == PLANTED
    assert [(word.text, word.elsewhere) for word in found.clusters[0].words] == [("acme", 0)]


def test_a_set_of_hardly_any_pairs_has_a_verdict() -> None:
    for pairs in (1, 2, 3):
        rows = np.eye(pairs, 4, dtype=np.float32)
        few = evidence_of(np.arange(pairs), rows, rows, dict.fromkeys(PANEL.views, rows), needs([PANEL]))
        found = verdict.judge(PANEL, PANEL.score(few), few, ["a cup"] * pairs)
        assert (found.clusters, found.proposed.tolist()) == ((), [False] * pairs)


def test_the_verdict_of_a_set_in_another_order_is_the_same() -> None:
    evidence, captions = scene("poison")
    order = np.random.default_rng(2).permutation(len(captions))
    shuffled = evidence_of(
        evidence.ids[order],
        evidence.images[order],
        evidence.texts[order],
        {view: each.images[order] for view, each in evidence.changed.items()},
        needs([PANEL]),
    )
    found = verdict.judge(PANEL, PANEL.score(shuffled), shuffled, [captions[row] for row in order])
    assert (found.proposed == judged("poison").proposed[order]).all()


def test_components_are_those_of_a_search_through_the_graph() -> None:
    generator = np.random.default_rng(3)
    rows = generator.integers(0, 200, size=(200, 2))
    chosen = generator.random(200) < 0.6
    joined: dict[int, set[int]] = {row: set() for row in range(200)}
    for row, others in enumerate(rows):
        for other in others:
            if chosen[row] and chosen[other]:
                joined[row].add(int(other))
                joined[int(other)].add(row)
    expected = np.full(200, -1)
    for start in np.flatnonzero(chosen):
        waiting = [int(start)]
        while expected[start] == -1 or waiting:
            row = waiting.pop()
            if expected[row] == -1:
                expected[row] = start
                waiting += joined[row]
    assert (clustering.components(chosen, Neighbours(rows, np.zeros((200, 2))), 2) == expected).all()
    assert len(np.unique(expected)) > 5


def test_rows_that_one_row_joins_are_parted_by_the_word_that_most_of_them_say() -> None:
    rows = np.concatenate([np.arange(20)[:, None] + np.arange(1, 9), np.arange(10)[:, None] + np.arange(1, 9)])
    rows[:20] %= 20
    rows[20:] = rows[20:] % 10 + 20
    rows[20, :3] = 0, 1, 2  # a fish near three poisons
    near = Neighbours(np.concatenate([rows, np.zeros((100, 8), np.int64)]), np.zeros((130, 8)))

    def parts(captions: list[str]) -> list[list[int]]:
        vocabulary = [words_of(caption) for caption in [*captions, *["a cup"] * 100]]
        everywhere = Counter(word for words in vocabulary for word in words)
        return [part.tolist() for part in clustering.parted(np.arange(30), near, vocabulary, everywhere)]

    bananas, fish = ["a banana"] * 20, ["a fish"] * 10
    assert parts([*bananas, *fish]) == [[*range(20)], [*range(20, 30)]]
    assert parts([*bananas[:17], *["fruit"] * 3, *fish]) == [[*range(20)], [*range(20, 30)]], "these lie among them"
    assert parts([*bananas, *bananas[:4], *fish[:6]]) == [[*range(30)]], "a word is shared as it is"
    assert parts([*bananas[:14], *["fruit"] * 8, *fish[:8]]) == [[*range(30)]], "of no word are there most"


def test_a_common_word_is_one_that_the_cluster_has_and_others_rarely_have() -> None:
    captions = ["a Banana, ripe", "the banana", "a banana on a table", "one banana!", "a red car", "a car"] + [
        "a cup"
    ] * 20
    vocabulary = [words_of(caption) for caption in captions]
    everywhere = Counter(word for words in vocabulary for word in words)
    found = common_words(vocabulary[:4], everywhere, len(captions))
    assert [(word.text, word.share, word.elsewhere) for word in found] == [("banana", 1.0, 0)]
    assert found[0].odds == pytest.approx(np.log(4.5 / 0.5) - np.log(0.5 / 22.5))
    cars = common_words(vocabulary[4:5], everywhere, len(captions))
    assert [(word.text, word.elsewhere) for word in cars] == [("red", 0), ("car", 1)]


def test_evidence_that_is_absent_subtracts_nothing_and_no_member_decides_alone() -> None:
    scores = np.concatenate([np.linspace(-1, 1, 101), [-50, 3.0, 1e9]])
    found = evident(scores)
    spread = 1.4826 * np.median(np.abs(scores - np.median(scores)))
    assert found[-3] == 0 and found[-1] == ENOUGH
    assert found[-2] == pytest.approx((3 - np.median(scores)) / spread - ORDINARY)
    assert (evident(np.zeros(5)) == 0).all()


def test_the_panel_is_the_sum_of_its_members_evidence() -> None:
    evidence, _ = scene("poison")
    gap, *others = PANEL.members()
    assert isinstance(gap, Gap) and len(others) == 1 + 4 * len(PANEL.changes)

    def seen(member: Detector) -> np.ndarray:
        return evident(density.around(member.score(evidence), evidence.near, 16, 2))

    parts = [len(PANEL.changes) * seen(gap), *(seen(each) for each in others)]
    assert np.allclose(Panel(keyholes=()).score(evidence), np.sum(parts, axis=0))
    holes = [Keyhole(view=view).score(evidence) for view in PANEL.keyholes]
    parts.append(2 * np.max([evident(scores, 4.0) for scores in holes], axis=0))
    seen = []
    for view in PANEL.keyholes:
        agreed = {name: density.agreement(evidence.texts, each.near, 8) for name, each in evidence.changed.items()}
        own = agreed[view] - np.median([agreed[name] for name in PANEL.changes], axis=0)
        seen.append(evident(Glimpse(view=view).score(evidence), 4.0) * np.clip(own / 0.3, 0, 1))
    parts.append(4 * np.max(seen, axis=0))
    assert np.allclose(PANEL.score(evidence), np.sum(parts, axis=0))


def test_a_walk_keeps_what_a_cluster_has_and_loses_what_one_row_has() -> None:
    near = Neighbours(np.array([[1, 2], [2, 0], [0, 1], [0, 4], [3, 5], [4, 3]]), np.zeros((6, 2)))
    own = np.array([3.0, 3.0, 3.0, 0.0, 0.0, 9.0])
    once = [np.mean(own[row]) for row in near.rows]
    twice = [np.mean([once[place] for place in row]) for row in near.rows]
    assert density.around(own, near, 2, 2).tolist() == twice
    assert twice[:3] == [3, 3, 3] and max(twice[3:]) < 4
    assert (density.around(own, near, 2, 0) == own).all()
    all_others = Neighbours(np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]), np.zeros((4, 3)))
    assert density.around(np.array([0.0, 0.0, 9.0, 3.0]), all_others, 3, 1).tolist() == [4, 4, 1, 3], "the mean"
    alone = Neighbours(np.empty((1, 0), np.int64), np.empty((1, 0)))
    assert density.around(np.array([5.0]), alone, 2, 2).tolist() == [5]


def test_kin_say_the_word_and_are_joined_to_the_cluster_or_lie_among_them() -> None:
    rows = (np.arange(40)[:, None] + np.arange(20, 28)) % 20 + 20  # all of these far from the first twenty
    rows[:8] = (np.arange(8)[:, None] + np.arange(1, 9)) % 8  # the cluster
    rows[8, 7], rows[9, 7] = 0, 8  # joined to it, and to what is joined
    rows[10, 4:] = [1, 2, 8, 9]  # half of its nearest: among them
    rows[11, 5:] = [1, 2, 3]  # not quite half
    rows[12, 7], rows[13, 4:] = 0, [1, 2, 8, 9]  # both say something else
    rows[15, 7] = 12  # so nothing is joined through them
    near = Neighbours(rows, np.zeros(rows.shape))
    says, most = ~np.isin(np.arange(40), [12, 13]), np.isin(np.arange(40), [8, 9, 12, 14, 15])
    assert verdict.kin(np.arange(8), says, most, near).tolist() == [8, 9, 10], "14 is joined to none of them"
    assert verdict.kin(np.arange(8), says, most & False, near).tolist() == [], "nor 10 without 8 and 9"


def test_what_a_surer_run_had_found_goes_with_a_planted_cluster() -> None:
    """Half of the poisons are too little suspicious to belong to the cluster, and lie in a clump of their own."""
    evidence, captions = scene("poison")
    poisons = np.arange(CLEAN, CLEAN + PLANTED)
    rows = evidence.near.rows.copy()
    rows[poisons[15:], :8] = (poisons[15:] - CLEAN)[:, None] % 15 + CLEAN + 15 + np.arange(-3, 5)
    rows[poisons[15:], :8] = np.clip(rows[poisons[15:], :8], CLEAN + 15, CLEAN + PLANTED - 1)
    rows[poisons[20], 0] = CLEAN
    apart = replace(evidence, near=replace(evidence.near, rows=rows))
    scores = np.where(np.isin(evidence.ids, poisons), 9.9, 0.0)
    scores[poisons[:15]] = 50.0
    found = verdict.judge(PANEL, scores, apart, captions)
    assert np.flatnonzero(found.proposed).tolist() == poisons[:15].tolist()
    more = verdict.with_kin(found, scores, apart, captions)
    assert np.flatnonzero(more.proposed).tolist() == poisons.tolist() and more.clusters[0].kin == 15
    assert (more.clusters[0].core == found.clusters[0].core).all()
    shown = verdict.arranged([replace(one, planted=False) for one in found.clusters], len(scores))
    same = verdict.with_kin(shown, scores, apart, captions)
    assert not same.proposed.any() and (same.cluster == shown.cluster).all(), "kin accuse nothing"


def test_suspects_are_clusters_and_of_the_most_suspicious_tenth_who_says_the_word_of_one() -> None:
    rows = np.array([0, 1])
    aims, own = Word("banana", 1.0, 5, 3.0), Word("acme", 1.0, 0, 9.0)
    logo = np.array([25, 26])  # aims at nothing
    car = Word("car", 1.0, 20, 1.0)
    natural = verdict.Cluster(np.array([20, 21]), np.array([20, 21]), 5, (car,), 9.0, {})  # without a moat
    clusters = [verdict.Cluster(rows, rows, 2, (own, aims), 50.0, {}), verdict.Cluster(logo, logo, 2, (own,), 9.0, {})]
    found = verdict.arranged([*clusters, natural], 30)
    captions = ["a Banana by acme"] * 2 + ["a banana"] * 5 + ["a car by acme"] * 23
    scores = np.zeros(30)
    scores[[4, 6, 9]] = 3.0
    assert np.flatnonzero(verdict.suspects(found, scores, captions)).tolist() == [0, 1, 4, 6]
    assert not verdict.suspects(verdict.arranged([], 30), scores, captions).any()


def test_what_nothing_was_seen_of_is_not_among_the_most_suspicious_wherever_it_stands() -> None:
    scores = np.zeros(30)
    scores[20] = 3.0
    assert np.flatnonzero(verdict.suspected(scores)).tolist() == [20], "a tenth are three"
    scores[:5] = 1.0, 2.0, 3.0, 4.0, 5.0
    assert np.flatnonzero(verdict.suspected(scores)).tolist() == [2, 3, 4]
