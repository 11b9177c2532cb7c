"""The mean of gradients over ranks; that it is the one of a single process: tests/contracts/test_objectives.py."""

import torch

from tests.support.drawn import drawn
from tests.support.learning import averaged_rows, beside_ddp
from tests.support.several_ranks import on_ranks

UNREAD = -1.0


def test_rows_that_any_rank_names_are_averaged_and_no_other_is_sent():
    """A row named twice counts once, one of both ranks is the mean of both, one of a single rank half of its own;
    -1, a text that is not there, names none; nor do ranks that have no text at all."""
    steps = [[[0, 4, 4], [4, 5, -1]], [[-1, -1], [-1, -1]], [[3], [-1]]]
    first, second = on_ranks(2, averaged_rows, steps)
    assert [one.tolist() for one in first] == [one.tolist() for one in second]
    assert [one[:, 1].tolist() for one in first] == [
        [0.0, UNREAD, UNREAD, UNREAD, (4 + 14) / 2, 15 / 2],
        [UNREAD] * 6,
        [UNREAD, UNREAD, UNREAD, 3 / 2, UNREAD, UNREAD],
    ]


def test_gradients_of_two_ranks_are_those_of_distributed_data_parallel_to_the_bit(tmp_path):
    drawn(str(tmp_path / "data"), 40, 2)
    first, second = on_ranks(2, beside_ddp, str(tmp_path / "data"))
    assert len(first["ddp"]) > 20
    for rank in (first, second):
        for name, gradient in rank["ddp"].items():
            assert torch.equal(rank["ours"][name], gradient), name
            assert torch.equal(first["ours"][name], second["ours"][name]), name
