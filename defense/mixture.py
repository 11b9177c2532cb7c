"""Two Gaussians on a line: to which of two heaps a number belongs, and how surely. For SafeCLIP's first division.

Maximum likelihood by EM (Dempster, Laird and Rubin 1977), in float64 and without a random number: it starts from the
best division in two, which on a line can be had exactly, and ends after a bounded number of steps.
"""

import math
from dataclasses import astuple, dataclass

import numpy as np

FLOOR = 1e-4  # the least variance of a heap, as a share of that of all numbers: a heap of one number would have none
STEPS = 1000
STILL = 1e-5  # EM has ended when nothing moves by more, with the numbers' standard deviation as the unit
DOUBT = 1e-12  # the least part of a number in either heap: neither dies
FAR = 700.0  # log-odds beyond which exp would overflow


@dataclass(frozen=True)
class Mixture:
    """Mean, variance and weight of two heaps, the one with the lower mean first; the weights add up to 1."""

    means: tuple[float, float]
    variances: tuple[float, float]
    weights: tuple[float, float]

    def posterior(self, values: np.ndarray) -> np.ndarray:
        """p(upper | value) by Bayes' rule: float64 like values.

        Where the variances differ it turns: far out, on both sides, everything belongs to the wider heap.
        """
        lower, upper = self._log_densities(values)
        return 1 / (1 + np.exp(np.clip(lower - upper, -FAR, FAR)))

    def rising(self, values: np.ndarray) -> np.ndarray:
        """The posterior, but for what lies beyond its turn, which has that of the turn: it never falls as values rise.

        The turn is never between the means. With a narrow upper heap it is the surest value, above the upper mean; with
        a wide one the least likely value, below the lower mean.
        """
        (low, high), (lower, upper) = self.means, self.variances
        if lower == upper:
            return self.posterior(values)
        turn = (low * upper - high * lower) / (upper - lower)  # where both log-densities have the same slope
        return self.posterior(np.maximum(values, turn) if upper > lower else np.minimum(values, turn))

    def log_likelihood(self, values: np.ndarray) -> float:
        """The mean over values of the log of their density."""
        return float(np.logaddexp(*self._log_densities(values)).mean())

    def improved(self, values: np.ndarray, floor: float = 0.0) -> "Mixture":
        """One step of EM: no less likely, unless a variance was raised to `floor`."""
        return divided(values, self.posterior(values), floor)

    def _log_densities(self, values: np.ndarray) -> list[np.ndarray]:
        """log of (weight x density), of either heap."""
        values = np.asarray(values, np.float64)
        return [
            math.log(weight / math.sqrt(2 * math.pi * variance)) - (values - mean) ** 2 / (2 * variance)
            for mean, variance, weight in zip(self.means, self.variances, self.weights, strict=True)
        ]


def fit(values: np.ndarray) -> Mixture:
    """values: float (n,). If all are equal, so are both heaps, and every posterior is 1/2.

    Raises ValueError for fewer than two values, or one that is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"two heaps are made of at least 2 numbers in a row, not of an array of {values.shape}")
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{wrong:,} of {len(values):,} numbers are not finite: they belong to no heap")
    spread = float(values.std())
    if values.min() == values.max() or spread**2 * FLOOR == 0:
        return Mixture((float(values[0]),) * 2, (1.0, 1.0), (0.5, 0.5))
    found = divided(values, values > best_cut(values), FLOOR * spread**2)
    for _ in range(STEPS):
        before, found = found, found.improved(values, FLOOR * spread**2)
        if _moved(before, found, spread) < STILL:
            break
    (a, b), (c, d), (e, f) = found.means, found.variances, found.weights
    return found if a <= b else Mixture((b, a), (d, c), (f, e))


def divided(values: np.ndarray, upper: np.ndarray, floor: float = 0.0) -> Mixture:
    """The mixture of a division: upper, float (n,), says what part of each value is the upper heap's."""
    parts = np.clip(np.asarray(upper, np.float64), DOUBT, 1 - DOUBT)
    means, variances, weights = [], [], []
    for part in (1 - parts, parts):
        whole = float(part.sum())
        means.append(float(part @ values) / whole)
        variances.append(max(float(part @ (values - means[-1]) ** 2) / whole, floor))
        weights.append(whole / len(values))
    return Mixture((means[0], means[1]), (variances[0], variances[1]), (weights[0], weights[1]))


def best_cut(values: np.ndarray) -> float:
    """2-means: the heaps are the values up to this one and those above it. float (n,), not all equal."""
    ascending = np.sort(np.asarray(values, np.float64))
    sums = np.cumsum(ascending - ascending.mean())[:-1]
    below = np.arange(1, len(ascending))
    between = sums**2 * (1 / below + 1 / (len(ascending) - below))  # the squares that a cut there explains
    between[ascending[:-1] == ascending[1:]] = -np.inf
    return float(ascending[np.argmax(between)])


def _moved(one: Mixture, other: Mixture, spread: float) -> float:
    (means, variances, weights), now = astuple(one), astuple(other)
    units = ((means, now[0], spread), (variances, now[1], spread**2), (weights, now[2], 1.0))
    return max(abs(a - b) / unit for before, after, unit in units for a, b in zip(before, after, strict=True))
