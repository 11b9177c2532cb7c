"""EM against what defines it: Bayes' rule, a likelihood that never falls, mixtures that are known."""

import itertools
import math

import numpy as np
import pytest

from defense.mixture import FLOOR, Mixture, best_cut, divided, fit
from infra.seeding import rng


def drawn(mixture: Mixture, count: int, label: str = "values") -> np.ndarray:
    """`count` values, by weight from either heap, in random order."""
    generator = rng(0, label)
    upper = (generator.random(count) < mixture.weights[1]).astype(int)
    scales = np.sqrt(mixture.variances)[upper]
    return np.asarray(mixture.means)[upper] + scales * generator.standard_normal(count)


def density(value: float, mean: float, variance: float) -> float:
    return math.exp(-((value - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


APART = Mixture((0.05, 0.30), (0.0016, 0.0025), (0.7, 0.3))
TOUCHING = Mixture((0.10, 0.22), (0.0025, 0.0009), (0.85, 0.15))
WIDE = Mixture((0.10, 0.20), (0.0009, 0.0025), (0.6, 0.4))
ODD = Mixture((-1.0, 2.0), (0.5, 4.0), (0.3, 0.7))


@pytest.mark.parametrize("known", [APART, TOUCHING, ODD])
def test_a_known_mixture_is_found(known):
    found = fit(drawn(known, 20_000))
    unit = math.sqrt(known.variances[0])
    assert found.means == pytest.approx(known.means, abs=0.15 * unit)
    assert np.sqrt(found.variances) == pytest.approx(np.sqrt(known.variances), rel=0.08)
    assert found.weights == pytest.approx(known.weights, abs=0.03)
    assert sum(found.weights) == pytest.approx(1)


def test_the_likelihood_never_falls_and_is_that_of_the_densities():
    values = drawn(TOUCHING, 500)
    found, likelihoods = divided(values, values > best_cut(values)), []
    for _ in range(60):
        likelihoods.append(found.log_likelihood(values))
        found = found.improved(values)
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 1e-3
    by_hand = [
        sum(w * density(value, m, v) for m, v, w in zip(found.means, found.variances, found.weights, strict=True))
        for value in values
    ]
    assert found.log_likelihood(values) == pytest.approx(np.mean(np.log(by_hand)), abs=1e-12)


def test_what_is_found_is_a_peak_of_the_likelihood():
    """Any parameter moved either way makes the values less likely, or no more so than EM's last step did."""
    values = drawn(APART, 5_000)
    found = fit(values)
    best, step = found.log_likelihood(values), 0.02
    for k in (0, 1):
        for sign in (-1, 1):
            means, variances = list(found.means), list(found.variances)
            means[k] += sign * step * math.sqrt(variances[k])
            assert Mixture(tuple(means), found.variances, found.weights).log_likelihood(values) < best
            variances[k] *= 1 + sign * step
            assert Mixture(found.means, tuple(variances), found.weights).log_likelihood(values) < best
    for weight in (found.weights[1] - step, found.weights[1] + step):
        assert Mixture(found.means, found.variances, (1 - weight, weight)).log_likelihood(values) < best


def test_the_posterior_is_bayes_rule():
    values = np.linspace(-0.1, 0.5, 13)
    for value, ours in zip(values, APART.posterior(values), strict=True):
        lower, upper = (
            w * density(value, m, v) for m, v, w in zip(APART.means, APART.variances, APART.weights, strict=True)
        )
        assert ours == pytest.approx(upper / (lower + upper), abs=1e-12)
    assert np.isfinite(APART.posterior(np.array([-1e6, 1e6]))).all()


@pytest.mark.parametrize(("mixture", "turns"), [(TOUCHING, "above"), (WIDE, "below"), (ODD, "below")])
def test_the_posterior_turns_beyond_a_mean_and_rising_does_not(mixture, turns):
    spread = math.sqrt(max(mixture.variances))
    values = np.linspace(mixture.means[0] - 8 * spread, mixture.means[1] + 8 * spread, 2001)
    plain, rising = mixture.posterior(values), mixture.rising(values)
    falls = values[1:][np.diff(plain) < -1e-9]
    assert len(falls)
    assert falls.min() > mixture.means[1] if turns == "above" else falls.max() < mixture.means[0]
    assert (np.diff(rising) >= -1e-12).all()
    between = (values >= mixture.means[0]) & (values <= mixture.means[1])
    assert np.array_equal(plain[between], rising[between])


def test_of_equal_variances_the_posterior_rises_by_itself():
    equal = Mixture((0.0, 1.0), (0.2, 0.2), (0.5, 0.5))
    values = np.linspace(-3, 4, 100)
    assert np.array_equal(equal.rising(values), equal.posterior(values))
    assert (np.diff(equal.posterior(values)) > 0).all()


def test_the_order_of_the_values_is_nothing_to_it():
    values = drawn(TOUCHING, 400)
    one, other = fit(values), fit(values[::-1])
    assert one == fit(values.copy())
    assert one.means == pytest.approx(other.means, abs=1e-9)


def test_the_cut_leaves_the_least_squares():
    values = drawn(ODD, 60)
    cuts = np.sort(values)[:-1]
    left = [sum(((part - part.mean()) ** 2).sum() for part in (values[values <= c], values[values > c])) for c in cuts]
    assert best_cut(values) == cuts[np.argmin(left)]


def test_heaps_of_one_value_each_keep_a_variance():
    found = fit(np.array([0.0, 0.0, 0.0, 1.0]))
    assert found.means == pytest.approx((0, 1), abs=1e-6)
    assert min(found.variances) >= FLOOR * np.var([0, 0, 0, 1]) * (1 - 1e-9)
    assert found.posterior(np.array([0.0, 1.0])) == pytest.approx([0, 1], abs=1e-6)
    assert fit(np.array([0.2, 0.1])).means == pytest.approx((0.1, 0.2), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_equal_values_are_as_likely_of_either_heap(value):
    found = fit(np.full(7, value))
    assert found.means == (value, value)
    assert found.rising(np.full(7, value)).tolist() == [0.5] * 7


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "at least 2 numbers"),
        ([1.0], "at least 2 numbers"),
        ([[1.0, 2.0]], "at least 2 numbers"),
        ([0.0, math.nan, math.inf, 1.0], "2 of 4 numbers are not finite"),
    ],
)
def test_what_cannot_be_divided_is_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        fit(np.array(values))
