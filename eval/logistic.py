"""Multinomial logistic regression with an L2 penalty, on embeddings; its strength chosen on images held out.

In float64 with L-BFGS, so the one minimum is found, and neither a seed nor an order of images has a say in it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from infra.seeding import rng

STRENGTHS = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of the penalty, the strongest first
UNCHOSEN = 1e-2  # where no class has an image to spare
HELD_OUT = 5  # one image of so many, of every class
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
    place = np.zeros(num_classes, np.int64)
    place[seen] = np.arange(len(seen))
    given, wanted = torch.from_numpy(np.asarray(rows, np.float64)), torch.from_numpy(place[labels])
    weight = torch.zeros(len(seen), rows.shape[1], dtype=torch.float64)
    bias = torch.zeros(len(seen), dtype=torch.float64)
    if start is not None:
        weight, bias = torch.from_numpy(start.weight[seen].copy()), torch.from_numpy(start.bias[seen].copy())
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(given @ weight.T + bias, wanted) + strength / 2 * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        optimizer.step(loss)
    return _spread(weight, bias, seen, num_classes)


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
        scores = torch.from_numpy(probe.scores(rows[held]))
        losses.append(float(F.cross_entropy(scores, torch.from_numpy(labels[held]))))
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
    groups = [{"params": [weight.requires_grad_()]}, {"params": [bias.requires_grad_()], "weight_decay": 0.0}]
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
    return _spread(weight, bias, np.arange(num_classes), num_classes)


def _spread(weight: Tensor, bias: Tensor, seen: np.ndarray, num_classes: int) -> Probe:
    whole = np.zeros((num_classes, weight.shape[1])), np.full(num_classes, -np.inf)
    whole[0][seen], whole[1][seen] = weight.detach().double().numpy(), bias.detach().double().numpy()
    return Probe(*whole)
