"""Ranks that show each other tensors in memory: the same as through gloo, and a word when one is missing."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from queue import Queue
from typing import Any

import pytest
import torch

from tests.support.learning import apart, both_ways
from tests.support.several_ranks import on_ranks
from train import nearby
from train.nearby import Nearby

TWENTY_SECONDS = timedelta(seconds=20)


def test_rows_and_means_are_those_of_gloo_whatever_grows_or_shrinks():
    """Of two ranks to the bit; of three the order of additions differs, which a run's record says."""
    lengths = [5, 1, 70_000, 300, 90_000]
    for count in (2, 3):
        found = on_ranks(count, both_ways, lengths)
        for rank in found:
            memory, gloo = rank["memory"], rank["gloo"]
            for ours, theirs in zip(memory["rows"], gloo["rows"], strict=True):
                assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
                assert len(ours[0]) == 3 * count
            for ours, theirs, first in zip(memory["means"], gloo["means"], found[0]["memory"]["means"], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if count == 2 else 1e-6)
                assert torch.equal(ours, first)
            assert (memory["way"], gloo["way"]) == ({}, {"exchange": "gloo"} if count == 3 else {})


def test_ranks_of_two_machines_show_each_other_nothing():
    assert on_ranks(2, apart) == [{"met": False}] * 2


def test_another_user_of_the_machine_is_shown_nothing(monkeypatch: pytest.MonkeyPatch):
    """The name of such a socket is open to everyone on it."""
    users = iter([os.getuid() + 1, os.getuid() + 2, os.getuid()])
    monkeypatch.setattr(nearby, "_machine", lambda: "here")
    monkeypatch.setattr(nearby, "_user_of", lambda _: next(users))
    name: Queue[str] = Queue()

    def tell(value: str) -> list[str]:
        if value != "here":
            name.put(value)
        return [value, value]

    def strangers_and_rank_1() -> Nearby | None:
        found = name.get(timeout=20)
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(found.encode("latin-1"))
                assert stranger.recv(1) == b"", "it was spoken to"
        return nearby.meet(1, 2, lambda value: [value if value == "here" else found, value], TWENTY_SECONDS)

    one, other = at_once(lambda: nearby.meet(0, 2, tell, TWENTY_SECONDS), strangers_and_rank_1)
    both = [[1.0], [2.0]]
    assert at_once(lambda: shown(one, [1.0]), lambda: shown(other, [2.0])) == [both, both]


def pair(timeout_seconds: float = 20.0) -> tuple[Nearby, Nearby]:
    ends, timeout = socket.socketpair(), timedelta(seconds=timeout_seconds)
    one, other = at_once(lambda: Nearby(0, {1: ends[0]}, timeout), lambda: Nearby(1, {0: ends[1]}, timeout))
    return one, other


def at_once(*work: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(work)) as pool:
        return [each.result() for each in [pool.submit(one) for one in work]]


def shown(rank: Nearby, values: list[float]) -> list[list[float]]:
    with rank.shown(len(values), torch.float64, lambda own: own.copy_(torch.tensor(values))) as found:
        return [each.tolist() for each in found]


def test_what_one_shows_stays_until_all_have_read_it_though_another_writes_at_once():
    one, other = pair()

    def turns(rank: Nearby, sign: int) -> list[Any]:
        return [shown(rank, [float(sign * turn)] * (turn % 7 + 1)) for turn in range(300)]

    expected = [[[float(turn)] * (turn % 7 + 1), [float(-turn)] * (turn % 7 + 1)] for turn in range(300)]
    assert at_once(lambda: turns(one, 1), lambda: turns(other, -1)) == [expected, expected]
    at_once(one.close, other.close)


def test_a_rank_that_is_gone_or_silent_or_elsewhere_in_its_work_is_named():
    one, other = pair()
    for end in other.others.values():
        end.close()
    with pytest.raises(RuntimeError, match="rank 1 is gone"):
        shown(one, [1.0])
    one, _other = pair(timeout_seconds=0.1)
    with pytest.raises(RuntimeError, match=r"rank 1 has said nothing for 0:00:00\.1"):
        shown(one, [1.0])
    one, other = pair(timeout_seconds=5.0)
    with pytest.raises(AssertionError, match=r"rank \d exchanges something else"):
        at_once(lambda: shown(one, [1.0]), lambda: shown(other, [1.0, 2.0]))
