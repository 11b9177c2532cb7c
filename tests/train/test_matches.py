import pytest
import torch

from infra import storage
from train import matches

STEPS = {
    3: ([5, 6], {"captions": [1, 2]}),
    4: ([7, 8], {"captions": [5, 1], "pictures": [6, 6]}),
    9: ([5], {"captions": [8]}),
}
LINES = [(3, "captions", 5, 1), (3, "captions", 6, 2), (4, "captions", 7, 5), (4, "captions", 8, 1),
         (4, "pictures", 7, 6), (4, "pictures", 8, 6), (9, "captions", 5, 8)]  # fmt: skip


@pytest.fixture(params=["disk", "memory"])
def run(request, tmp_path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"memory://{tmp_path.name}-matches"


def kept(run: str, first: int, last: int, parts: list[int]) -> None:
    """The book of an attempt that begins after step `first` and saves after each of `parts`."""
    book = matches.Book(run, first)
    for step in range(first + 1, last + 1):
        rows, found = STEPS.get(step, ([], {}))
        book.add(step, torch.tensor(rows), {what: torch.tensor(ids) for what, ids in found.items()})
        if step in parts and (part := book.take()) is not None:
            book.write(step, part)


def lines(run: str) -> list[tuple[int, str, int, int]]:
    return list(zip(*matches.read(run).to_pydict().values(), strict=True))


def test_matches_come_back_in_the_order_of_the_steps(run):
    kept(run, 0, 10, [4, 10])
    assert lines(run) == LINES
    assert matches.read(run).schema == matches.ROWS


def test_a_step_without_matches_makes_no_part_and_a_run_without_them_no_folder(run):
    kept(run, 0, 10, [2, 10])
    assert storage.names(f"{run}/matches") == ["step-0000010.parquet"]
    kept(f"{run}-other", 4, 8, [5, 6, 8])
    assert not storage.names(f"{run}-other") and matches.read(f"{run}-other").num_rows == 0


def test_a_resumed_run_forgets_what_came_after_its_checkpoint_and_says_it_again(run):
    kept(run, 0, 9, [3, 9])
    kept(run, 3, 6, [4])  # killed once more
    kept(run, 4, 10, [7, 10])
    assert lines(run) == LINES
    kept(run, 0, 10, [10])  # not one checkpoint was whole
    assert lines(run) == LINES and storage.names(f"{run}/matches") == ["step-0000010.parquet"]


def test_more_than_nine_million_steps_stay_in_order(run):
    for step in (12_345_678, 9_999_999):
        book = matches.Book(run, 20_000_000)
        book.add(step, torch.tensor([1]), {"captions": torch.tensor([2])})
        part = book.take()
        assert part is not None
        book.write(step, part)
    assert [line[0] for line in lines(run)] == [9_999_999, 12_345_678]
