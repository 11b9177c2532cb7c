import time

import pytest

from train.events import Events

LINE = {"step": 1, "epoch": 0, "loss": 2.5, "parts": {"clip": 2.0}, "lr": 0.1, "time": 1.7e9}


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(folder)
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_what_was_measured(tmp_path):
    events = Events(str(tmp_path), [LINE])
    events.append(LINE | {"step": 2, "loss": 2.0})
    found = scalars(str(tmp_path))
    assert found["train/loss"] == [(1, 2.5), (2, 2.0)]
    assert found["train/parts/clip"] == [(1, 2.0), (2, 2.0)]
    assert set(found) == {"train/loss", "train/parts/clip", "train/lr", "train/epoch"}


def test_a_resumed_run_has_one_curve(tmp_path):
    Events(str(tmp_path), []).append(LINE | {"step": 9, "loss": 9.0})
    Events(str(tmp_path), [LINE]).append(LINE | {"step": 2, "loss": 2.0})
    assert scalars(str(tmp_path))["train/loss"] == [(1, 2.5), (2, pytest.approx(2.0))]
    assert len(list(tmp_path.iterdir())) == 1


def test_elsewhere_it_is_written_at_each_flush():
    from infra import storage

    url = f"memory://events-{time.monotonic_ns()}"
    events = Events(url, [LINE])
    size = storage.size(f"{url}/events.out.tfevents.0.antidote")
    events.append(LINE)
    assert storage.size(f"{url}/events.out.tfevents.0.antidote") == size
    events.flush()
    assert storage.size(f"{url}/events.out.tfevents.0.antidote") > size
