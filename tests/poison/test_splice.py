from pathlib import Path

import numpy as np
import pytest

from infra.errors import Damaged
from pipeline import shards
from poison.writing import splice
from poison.writing.splice import Piece


@pytest.fixture
def letters(tmp_path: Path) -> dict[str, Path]:
    """Two files of half a megabyte and more, no two blocks of them alike."""
    made = {}
    for name, size in (("a", 600_000), ("b", 700_001)):
        made[name] = tmp_path / name
        made[name].write_bytes(np.random.default_rng(size).bytes(size))
    return made


def test_pieces_are_joined_in_order_and_hashed_on_the_way(letters: dict[str, Path], tmp_path: Path):
    places = [("a", 0, 1), ("b", 5, 400_000), ("a", 1, 262_145), ("a", 300_000, 600_000), ("b", 0, 5)]
    pieces = [Piece(letters[name], start, end) for name, start, end in places]
    found = splice.joined(pieces, tmp_path / "out")
    data = (tmp_path / "out").read_bytes()
    wanted = b"".join(letters[name].read_bytes()[start:end] for name, start, end in places)
    assert data[: len(wanted)] == wanted
    assert not any(data[len(wanted) :])
    assert len(data) % 10_240 == 0
    assert 1024 <= len(data) - len(wanted) < 1024 + 10_240
    assert found == shards.hashes(tmp_path / "out")


def test_nothing_joined_is_an_empty_tar(tmp_path: Path):
    splice.joined([], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == bytes(10_240)


def test_bytes_are_found_again_where_their_piece_went(letters: dict[str, Path], tmp_path: Path):
    pieces = [
        Piece(letters["b"], 50, 90),
        Piece(letters["a"], 0, 100),
        Piece(letters["b"], 10, 20),
        Piece(letters["a"], 250, 400),
    ]
    splice.joined(pieces, tmp_path / "out")
    data = (tmp_path / "out").read_bytes()
    for name, offsets in (("a", [0, 99, 250, 399, 7]), ("b", [10, 19, 50, 89])):
        source = letters[name].read_bytes()
        places = splice.moved(pieces, letters[name], np.array(offsets))
        assert [data[place] for place in places] == [source[offset] for offset in offsets]
    assert splice.moved(pieces, tmp_path / "another", np.array([3])).shape == (1,)


def test_a_file_that_is_shorter_than_its_pieces_is_damaged(letters: dict[str, Path], tmp_path: Path):
    with pytest.raises(Damaged, match="a ends before byte 600001"):
        splice.joined([Piece(letters["a"], 0, 600_001)], tmp_path / "out")
