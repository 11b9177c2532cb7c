"""Multinomial logistic regression with an L2 penalty, on embeddings; its strength chosen on images held out.

In float64 with L-BFGS, so the one minimum is found, and neither a seed nor an order of images has a say in it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import optimize

from infra.seeding import rng

STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # of the penalty, the strongest first
UNCHOSEN = 1e-2  # where no class has an image to spare
HELD_OUT = 5  # one image of so many, of every class
STEPS, TOLERANCE = 1000, 1e-7  # of L-BFGS
BATCH = 128  # of the AdamW probe
LEARNING_RATE = 0.005


@dataclass(frozen=True, eq=False)
class Probe:
    """weight: float64 (C, D); bias: float64 (C,), minus infinity for a class that was never seen."""

    weight: np.ndarray
    bias: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float64 (n, C), by float (n, D)."""
        return rows @ self.weight.T + self.bias


def fit(rows: np.ndarray, labels: np.ndarray, num_classes: int, strength: float, start: Probe | None = None) -> Probe:
    """The minimum of mean cross-entropy + strength / 2 * |weight|^2, the bias free. rows: float (n, D); labels: int64
    (n,) below num_classes. start: a solution near by. A class without rows is never answered."""
    seen = np.unique(labels)
    wanted = np.searchsorted(seen, labels)
    given = np.concatenate([np.asarray(rows, np.float64), np.ones((len(rows), 1))], axis=1)
    own = (np.arange(len(rows)), wanted)
    begin = np.zeros((len(seen), given.shape[1]))
    if start is not None:
        begin[:, :-1], begin[:, -1] = start.weight[seen], start.bias[seen]

    # What the curvature is at most (Boehning 1992), whatever the weights. In units of its root every way is about as
    # steep as any other, so a few steps do where raw embeddings, most of them alike, need thousands.
    curvature = given.T @ given / len(rows) / 2 + np.diag([*[strength] * rows.shape[1], 0.0])
    root = np.linalg.cholesky(curvature + 1e-12 * np.eye(len(curvature)))
    unit = np.linalg.inv(root)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat.reshape(begin.shape) @ unit
        scores = given @ weight.T
        scores -= scores.max(axis=1, keepdims=True)
        total = np.exp(scores)
        sums = total.sum(axis=1, keepdims=True)
        value = float((np.log(sums[:, 0]) - scores[own]).mean() + strength / 2 * np.square(weight[:, :-1]).sum())
        slope = total / sums
        slope[own] -= 1
        gradient = slope.T @ given / len(rows)
        gradient[:, :-1] += strength * weight[:, :-1]
        return value, (gradient @ unit.T).ravel()

    options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "gtol": TOLERANCE, "ftol": 0.0}
    ended = optimize.minimize(loss, (begin @ root).ravel(), jac=True, method="L-BFGS-B", options=options)
    found = ended.x.reshape(begin.shape) @ unit
    return _spread(found[:, :-1], found[:, -1], seen, num_classes)


def chosen(rows: np.ndarray, labels: np.ndarray, names: np.ndarray, num_classes: int) -> float:
    """The strength under which images held out are most likely; of equal ones the strongest.

    Held out is of every class one image of five, those of the lowest names: by content, so their order has no say.
    """
    held = held_out(labels, names)
    if not held.any():
        return UNCHOSEN
    losses, probe = [], None
    for strength in STRENGTHS:
        probe = fit(rows[~held], labels[~held], num_classes, strength, probe)
        scores = probe.scores(rows[held])
        losses.append(float((np.logaddexp.reduce(scores, axis=1) - scores[np.arange(held.sum()), labels[held]]).mean()))
    return STRENGTHS[int(np.argmin(losses))]


def held_out(labels: np.ndarray, names: np.ndarray) -> np.ndarray:
    """bool (n,). A class of fewer than five images has none to spare."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        held[own[np.argsort(names[own], kind="stable")][: len(own) // HELD_OUT]] = True
    return held


def adamw(rows: np.ndarray, labels: np.ndarray, num_classes: int, epochs: int, seed: int) -> Probe:
    """CleanCLIP's probe, as its code trains it: AdamW at 0.005, a weight decay of 0.01 on the weight alone, cosine
    without warm-up, batches of 128, torch's own start. rows: float32 (n, D), embeddings before they are normalised."""
    generator = torch.Generator().manual_seed(int(rng(seed, "probe").integers(2**31)))
    bound = rows.shape[1] ** -0.5
    weight = torch.empty(num_classes, rows.shape[1]).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(num_classes).uniform_(-bound, bound, generator=generator)
    given, wanted = torch.from_numpy(np.asarray(rows, np.float32)), torch.from_numpy(labels)
    groups: list[dict[str, Any]] = [
        {"params": [weight.requires_grad_()]},
        {"params": [bias.requires_grad_()], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.01)
    steps = epochs * -(-len(rows) // BATCH)
    with torch.enable_grad():
        step = 0
        for _ in range(epochs):
            for batch in torch.randperm(len(rows), generator=generator).split(BATCH):
                for group in optimizer.param_groups:
                    group["lr"] = LEARNING_RATE * (1 + np.cos(np.pi * step / steps)) / 2
                optimizer.zero_grad()
                F.cross_entropy(given[batch] @ weight.T + bias, wanted[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
    return Probe(weight.detach().double().numpy(), bias.detach().double().numpy())


def _spread(weight: np.ndarray, bias: np.ndarray, seen: np.ndarray, num_classes: int) -> Probe:
    whole = np.zeros((num_classes, weight.shape[1])), np.full(num_classes, -np.inf)
    whole[0][seen], whole[1][seen] = weight, bias
    return Probe(*whole)
