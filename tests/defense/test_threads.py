"""Parts of arrays by several threads: in order, one of torch's threads each, and an error ends it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from defense import threads


@pytest.fixture(autouse=True)
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_what_is_made_of_the_parts_comes_in_their_order() -> None:
    together = threading.Barrier(3, timeout=10)  # the third lets the first two go: there are three threads

    def work(part: int) -> tuple[int, int]:
        together.wait()
        return part, torch.get_num_threads()

    assert list(threads.each(work, range(6))) == [(part, 1) for part in range(6)]
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as another:
        assert another.submit(torch.get_num_threads).result() == 3


def test_an_error_is_raised_and_what_has_not_begun_never_does() -> None:
    begun = []

    def work(part: int) -> None:
        begun.append(part)
        if part == 0:
            raise ValueError("the first part")
        threading.Event().wait(0.05)

    with pytest.raises(ValueError, match="the first part"):
        list(threads.each(work, range(1000)))
    assert len(begun) < 100
