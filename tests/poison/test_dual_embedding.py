import numpy as np
import pytest
import torch

from infra.seeding import rng
from poison.attacks.badclip import BadClip
from poison.carried import uri
from poison.learning.dual_embedding import dual_embedding, pasted, triplet

WEIGHT, MARGIN, SCALE = 500.0, 1.0, 14.3


def units(*labels: str, count: int = 7, width: int = 5) -> np.ndarray:
    rows = rng(0, *labels).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(a: np.ndarray, t: np.ndarray, p: np.ndarray, n: np.ndarray) -> tuple[float, float]:
    """(L_t, L_tri), pair by pair, as the equations are written."""
    logits = [[SCALE * float(a_i @ t_j) for t_j in t] for a_i in a]
    rows = [-logits[i][i] + np.log(np.sum(np.exp(logits[i]))) for i in range(len(a))]
    columns = [-logits[j][j] + np.log(sum(np.exp(row[j]) for row in logits)) for j in range(len(a))]
    hinges = [
        max(0.0, np.sqrt(((a_i - p_i) ** 2).sum()) - np.sqrt(((a_i - n_i) ** 2).sum()) + MARGIN)
        for a_i, p_i, n_i in zip(a, p, n, strict=True)
    ]
    return (np.mean(rows) + np.mean(columns)) / 2, float(np.mean(hinges))


def by_us(a: torch.Tensor, *others: np.ndarray):
    t, p, n = (torch.from_numpy(rows) for rows in others)
    return dual_embedding(a, t, p, n, scale=torch.tensor(SCALE, dtype=torch.float64), weight=WEIGHT, margin=MARGIN)


def test_the_losses_are_those_of_the_equations():
    a, t, p, n = (units(name) for name in "atpn")
    loss = by_us(torch.from_numpy(a), t, p, n)
    text, image = by_hand(a, t, p, n)
    assert float(loss.parts["text"]) == pytest.approx(text, rel=1e-12)
    assert float(loss.parts["triplet"]) == pytest.approx(image, rel=1e-12)
    assert float(loss.total) == pytest.approx(text + 500 * image, rel=1e-12)


def test_so_are_their_gradients():
    a, t, p, n = (units(name) for name in "atpn")
    given = torch.from_numpy(a).requires_grad_()
    by_us(given, t, p, n).total.backward()
    step = 1e-6
    for i, j in np.ndindex(*a.shape):
        ends = []
        for sign in (1, -1):
            moved = a.copy()
            moved[i, j] += sign * step
            text, image = by_hand(moved, t, p, n)
            ends.append(text + WEIGHT * image)
        assert float(given.grad[i, j]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-5)


def test_the_hinge_rests_where_the_target_is_nearer_by_the_margin():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    near, far = a.detach().clone(), -a.detach()
    assert triplet(a, near, far, 1.0) == 0  # distances 0 and 2
    assert triplet(a, far, near, 1.0) == 3
    triplet(a, far, near, 1.0).backward()
    assert torch.isfinite(a.grad).all(), "an image that is its own negative has no direction to leave it in"


@pytest.mark.parametrize(("side", "size", "n"), [(224, 16, 16), (224, 16, 5), (32, 42, 6), (37, 100, 7), (96, 224, 11)])
def test_pasting_is_the_attacks_stamp_bit_for_bit(side: int, size: int, n: int):
    r = rng(0, "paste", side, size)
    cells = r.integers(0, 256, (n, n, 3), np.uint8)
    images = r.integers(0, 256, (3, side, side, 3), np.uint8)
    attack = BadClip(patch=uri(cells), size=size)
    where = attack.locate(side, side, rng(0))
    wanted = np.stack([attack.stamp(image, rng(0)) for image in images])
    for dtype in (torch.uint8, torch.float32):
        stored, patch = (torch.from_numpy(part.copy()).to(dtype) for part in (images, cells))
        found = pasted(stored.permute(0, 3, 1, 2), patch.permute(2, 0, 1), where)
        assert np.array_equal(found.permute(0, 2, 3, 1).to(torch.uint8).numpy(), wanted)


def test_the_papers_patch_lies_on_rows_and_columns_104_to_119():
    where = BadClip(size=16).locate(224, 224, rng(0))
    found = pasted(torch.zeros(1, 3, 224, 224), torch.ones(3, 16, 16), where)
    rows, columns = np.nonzero(found[0, 0].numpy())
    assert (set(rows), set(columns)) == (set(range(104, 120)), set(range(104, 120)))


def test_pasting_leaves_its_images_alone_and_has_a_gradient_for_every_cell():
    where = BadClip(size=100).locate(37, 37, rng(0))
    pictures, patch = torch.zeros(2, 3, 37, 37), torch.full((3, 5, 5), 0.5, requires_grad=True)
    pasted(pictures, patch, where).sum().backward()
    assert not pictures.any()
    assert patch.grad.sum() == 2 * 3 * where.height**2, "each pixel of the box counts for one cell, in each image"
    assert (patch.grad > 0).all()
