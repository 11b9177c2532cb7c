import numpy as np
import pytest

from eval.interval import bootstrap, clopper_pearson, difference


def test_the_interval_of_no_success_ends_where_so_many_failures_have_probability_two_and_a_half_percent() -> None:
    low, high = clopper_pearson(0, 100)
    assert low == 0
    assert (1 - high) ** 100 == pytest.approx(0.025)


def test_the_interval_of_only_successes_mirrors_it() -> None:
    low, high = clopper_pearson(100, 100)
    assert high == 1
    assert low**100 == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (5, 10, 0.18708603, 0.81291397),  # beta quantiles, as any statistics package gives them
        (1, 20, 0.00126509, 0.24873276),
        (49, 49950, 0.000725821, 0.001296704),
    ],
)
def test_intervals_agree_with_beta_quantiles(successes: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), rel=1e-5)


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    value, low, high = bootstrap(values)
    assert value == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_the_bootstrap_of_a_median_lies_among_the_values_and_their_order_has_no_say() -> None:
    values = np.array([1, 1, 2, 7, 900])
    value, low, high = bootstrap(values, middle=True)
    assert (value, low in values, high in values) == (2, True, True)
    assert bootstrap(values[::-1], middle=True) == (value, low, high)
    assert bootstrap(np.full(5, 3.0), middle=True) == (3, 3, 3)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),  # Newcombe 1998, table II, method 10
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_a_difference_of_shares_has_the_interval_of_the_published_examples(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    value, *found = difference(one, other)
    assert value == one[0] / one[1] - other[0] / other[1]
    assert found == pytest.approx([low, high], abs=6e-5)
    assert difference(other, one) == pytest.approx((-value, -found[1], -found[0]))
