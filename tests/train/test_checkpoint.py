import threading
import time
from pathlib import Path

import pytest
import torch

from infra import storage
from infra.errors import Damaged
from train import checkpoint

TRAINING = {
    "step": 3,
    "optimizer": {"state": {0: {"exp_avg": torch.arange(4.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "order": {"dataset": "abc", "seed": 0, "batch": 16},
    "roles": None,
}


@pytest.fixture(params=["disk", "memory"])
def run(request, tmp_path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"memory://checkpoint-{time.monotonic_ns()}"


def test_what_is_saved_is_read_back(run):
    saved = checkpoint.save(run, 3, b"weights", TRAINING)
    found = checkpoint.find(run)
    assert found == saved
    assert (found.name, found.step) == ("step-0000003", 3)
    assert found.read(checkpoint.MODEL) == b"weights"
    state = found.read_training()
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], torch.arange(4.0))
    assert state["order"] == TRAINING["order"]


def test_there_is_none_in_a_new_run(run):
    assert checkpoint.find(run) is None


def test_the_last_two_are_kept(run):
    for step in (1, 2, 30, 400):
        checkpoint.save(run, step, b"weights", {"step": step})
    assert [found.step for found in checkpoint.whole(run)] == [30, 400]
    assert storage.names(storage.join(run, "checkpoints")) == ["step-0000030", "step-0000400"]


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 30, 400]), (1, [400]), (3, [2, 30, 400])])
def test_as_many_are_kept_as_are_asked_for(run, keep, left):
    for step in (1, 2, 30, 400):
        checkpoint.save(run, step, b"weights", {"step": step}, keep)
    assert [found.step for found in checkpoint.whole(run)] == left


def test_a_checkpoint_without_its_mark_does_not_exist(run):
    checkpoint.save(run, 1, b"one", {})
    half = checkpoint.save(run, 2, b"two", {})
    storage.remove(storage.join(half.url, checkpoint.COMPLETE))
    assert checkpoint.find(run).step == 1
    assert checkpoint.save(run, 2, b"two again", {}).read(checkpoint.MODEL) == b"two again"


@pytest.mark.parametrize("harm", ["changed", "cut", "missing"])
def test_a_damaged_one_is_passed_over_with_a_warning(run, harm, capsys):
    checkpoint.save(run, 1, b"the first weights", {})
    newest = storage.join(checkpoint.save(run, 2, b"weights", {}).url, checkpoint.MODEL)
    {
        "changed": lambda: storage.write(newest, b"weightz"),
        "cut": lambda: storage.write(newest, b"weigh"),
        "missing": lambda: storage.remove(newest),
    }[harm]()
    assert checkpoint.find(run).step == 1
    assert "taking the checkpoint before it" in capsys.readouterr().err
    with pytest.raises(Damaged, match=r"step-0000002/model\.safetensors is"):
        checkpoint.find(run, "step-0000002")


@pytest.mark.parametrize("said", [b"", b"{", b"\xff", b"[]", b"{}", b'{"model.safetensors": {"bytes": 3}}'])
def test_one_whose_mark_is_damaged_is_passed_over_with_a_warning(run, said, capsys):
    checkpoint.save(run, 1, b"the first weights", {})
    newest = checkpoint.save(run, 2, b"weights", {})
    storage.write(storage.join(newest.url, checkpoint.COMPLETE), said)
    assert checkpoint.find(run).step == 1
    assert "step-0000002/complete.json is damaged; that checkpoint is passed over" in capsys.readouterr().err
    checkpoint.save(run, 2, b"weights", {})
    assert checkpoint.find(run).step == 2


def test_training_state_is_read_without_unpickling_objects(run):
    checkpoint.save(run, 1, b"", {"step": Path("/etc")})
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoint.find(run).read_training()


# In the background


def test_what_is_written_is_what_was_there_when_the_write_began(run):
    weights, may_go_on = {"w": torch.zeros(3)}, threading.Event()
    with checkpoint.Background() as writer:
        taken = checkpoint.snapshot(weights)

        def write() -> None:
            assert may_go_on.wait(30)
            checkpoint.save(run, 1, b"", taken)

        writer.start(write)
        weights["w"] += 1  # training goes on
        writer.check()
        may_go_on.set()
    assert torch.equal(checkpoint.find(run).read_training()["w"], torch.zeros(3))


def test_a_snapshot_shares_no_memory_and_keeps_what_is_no_tensor():
    state = {"groups": [{"lr": 0.1, "params": [0, 1]}], "state": {0: (torch.ones(2), None)}, "name": "adamw"}
    taken = checkpoint.snapshot(state)
    state["state"][0][0].zero_()
    assert taken["state"][0][0].tolist() == [1.0, 1.0]
    assert (taken["groups"], taken["state"][0][1], taken["name"]) == (state["groups"], None, "adamw")


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSES", (0.0, 0.0))


def failing(times: int, log: list[int]):
    def work() -> None:
        log.append(1)
        if len(log) <= times:
            raise ConnectionError("the server is busy")

    return work


def test_a_busy_server_is_asked_again(hasty, capsys):
    with checkpoint.Background() as writer:
        writer.start(failing(2, calls := []))
    assert len(calls) == 3
    assert capsys.readouterr().err.count("the server is busy") == 2


def test_a_server_that_stays_away_ends_the_run(hasty):
    with pytest.raises(ConnectionError, match="busy"), checkpoint.Background() as writer:  # noqa: PT012
        writer.start(failing(99, []))
        for _ in range(1000):
            writer.check()
            time.sleep(0.01)


def test_the_next_write_waits_for_the_one_before_and_bears_its_failure(hasty):
    with pytest.raises(ConnectionError, match="busy"), checkpoint.Background() as writer:  # noqa: PT012
        writer.start(failing(99, []))
        writer.start(lambda: None)


def test_a_failed_write_hides_no_other_error(hasty, capsys):
    with pytest.raises(KeyError), checkpoint.Background() as writer:  # noqa: PT012
        writer.start(failing(99, []))
        raise KeyError("what really happened")
    assert "the last checkpoint could not be written: the server is busy" in capsys.readouterr().err


def test_an_old_one_that_cannot_be_removed_costs_a_warning_and_no_second_upload(run, monkeypatch, capsys):
    for step in (1, 2):
        checkpoint.save(run, step, b"weights", {})

    def refuse(url: str) -> None:
        raise ConnectionError("busy")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.storage, "remove", refuse)
        assert checkpoint.save(run, 3, b"weights", {}) == checkpoint.find(run)
    assert "an old checkpoint could not be removed: busy" in capsys.readouterr().err
