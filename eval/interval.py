"""How sure a number is."""

import math

import numpy as np

from infra.seeding import rng

RESAMPLES = 1000
NORMAL = 1.959963984540054  # of the standard normal distribution, 95% lie within


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval (Clopper and Pearson 1934) of `successes` in `trials`: (low, high).

    low: the rate at which so many successes, or more, have probability (1 - confidence) / 2; high: so many, or fewer.
    """
    assert 0 <= successes <= trials != 0, f"{successes} of {trials}"
    half = (1 - confidence) / 2
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    counts = np.arange(trials + 1)
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]

    def at_least(count: int, rate: float) -> float:
        tail = counts[count:]
        return float(np.exp(log_choose[count:] + tail * np.log(rate) + (trials - tail) * np.log1p(-rate)).sum())

    low = 0.0 if successes == 0 else _solve(lambda rate: at_least(successes, rate) - half)
    high = 1.0 if successes == trials else _solve(lambda rate: at_least(successes + 1, rate) - (1 - half))
    return low, high


def difference(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float, float]:
    """The first share less the second, and its 95% interval: Newcombe's hybrid of two score intervals (1998, method
    10). one, other: (successes, trials); the trials of the two are taken to be independent.
    """
    (first, first_low, first_high), (second, second_low, second_high) = _wilson(*one), _wilson(*other)
    value = first - second
    low = value - math.hypot(first - first_low, second_high - second)
    high = value + math.hypot(first_high - first, second - second_low)
    return value, low, high


def _wilson(successes: int, trials: int) -> tuple[float, float, float]:
    """A share and its score interval (Wilson 1927)."""
    assert 0 <= successes <= trials != 0, f"{successes} of {trials}"
    share, square = successes / trials, NORMAL**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = NORMAL * math.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return share, middle - half, middle + half


def _solve(rising) -> float:  # type: ignore[no-untyped-def]
    """Where a rising function on (0, 1) crosses zero."""
    below, above = 0.0, 1.0
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if rising(middle) < 0 else (below, middle)
    return (below + above) / 2


def bootstrap(values: np.ndarray, middle: bool = False, confidence: float = 0.95) -> tuple[float, float, float]:
    """The mean of `values`, float (n,), or their median, and its percentile interval over 1,000 resamples (Efron 1979).

    The values are sorted first, and what is drawn depends on their number alone: their order does not matter.
    """
    values = np.sort(np.asarray(values, np.float64))
    generator = rng(0, "bootstrap", len(values))
    of = np.median if middle else np.mean
    found = [of(values[generator.integers(len(values), size=len(values))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(of(values))
    return value, min(float(low), value), max(float(high), value)
