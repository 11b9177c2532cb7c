import numpy as np
import pytest

from infra.seeding import digest64, hash64, rng


def test_the_same_labels_give_the_same_numbers_and_others_do_not():
    assert rng(1, "order", 2).random() == rng(1, "order", 2).random()
    values = {digest64(1, "order", 2), digest64(2, "order", 2), digest64(1, "order", 3), digest64(1, "views", 2)}
    assert len(values) == 4


def test_a_label_counts_with_its_type_and_its_place():
    assert digest64(0, "1") != digest64(0, 1)
    assert digest64(0, "a", "b") != digest64(0, "ab")
    assert digest64(0, np.int64(5)) == digest64(0, 5)
    with pytest.raises(ValueError, match="label is an int or a str"):
        digest64(0, 0.5)  # type: ignore[arg-type]


def test_hash64_is_a_bijection_that_no_order_changes():
    ids = np.arange(100_000)
    hashes = hash64(3, "poison", ids)
    assert len(np.unique(hashes)) == len(ids)
    assert np.array_equal(hash64(3, "poison", ids[::-1])[::-1], hashes)
    assert not np.array_equal(hash64(3, "order", ids), hashes)
    # The lowest tenth is spread evenly over the ids.
    assert abs(np.mean(np.argsort(hashes)[:10_000]) - 50_000) < 1_000
