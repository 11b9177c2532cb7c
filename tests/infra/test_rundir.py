import json
import time

import pytest

from infra import rundir, storage

CONFIG = {"out": "runs/r1", "workers": 2, "seed": 0, "recipe": {"lr": 0.001, "batch": 16}}
INPUTS = {"dataset": {"digest": "abc"}, "start": None}
FREE = {"out", "workers"}


@pytest.fixture(params=["disk", "memory"])
def url(request, tmp_path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"memory://rundir-{time.monotonic_ns()}"


def test_a_folder_is_claimed_once_and_the_same_command_may_come_back(url):
    rundir.claim(url, CONFIG, FREE, INPUTS)
    rundir.claim(url, CONFIG | {"workers": 8, "out": "elsewhere/r1"}, FREE, INPUTS)
    assert rundir.config(url) == CONFIG


@pytest.mark.parametrize(
    ("config", "inputs", "message"),
    [
        (CONFIG | {"seed": 1}, INPUTS, "its seed is 0, not 1"),
        (CONFIG | {"recipe": {"lr": 0.1, "batch": 16}}, INPUTS, "its recipe.lr is 0.001, not 0.1"),
        (CONFIG, {"dataset": {"digest": "xyz"}, "start": None}, "its dataset.digest is 'abc', not 'xyz'"),
    ],
)
def test_another_run_in_its_place_is_refused_by_naming_the_difference(url, config, inputs, message):
    rundir.claim(url, CONFIG, FREE, INPUTS)
    with pytest.raises(ValueError, match=f"exists and differs: {message}; choose another --out"):
        rundir.claim(url, config, FREE, inputs)
    assert rundir.config(url) == CONFIG


def test_a_folder_of_something_else_is_refused(url):
    storage.write(f"{url}/dataset.json", b"{}")
    with pytest.raises(ValueError, match=r"not a run of ours \(it holds 'dataset.json'\)"):
        rundir.claim(url, CONFIG, FREE, INPUTS)
    assert storage.names(url) == ["dataset.json"]


def test_a_claim_that_was_killed_halfway_is_finished(url):
    rundir.claim(url, CONFIG, FREE, INPUTS)
    storage.remove(f"{url}/environment.json")
    rundir.claim(url, CONFIG, FREE, INPUTS)
    assert rundir.environment(url) == {"inputs": INPUTS, "attempts": []}


def test_no_run_no_config(url):
    with pytest.raises(ValueError, match=r"it has no config.json"):
        rundir.config(url)


def test_every_start_is_recorded_without_the_machines_name(url):
    import socket

    rundir.claim(url, CONFIG, FREE, INPUTS)
    rundir.record_attempt(url, {"step": 0, "ranks": 1})
    rundir.record_attempt(url, {"step": 40, "ranks": 2})
    found = rundir.environment(url)
    assert found["inputs"] == INPUTS
    assert [(attempt["step"], attempt["ranks"]) for attempt in found["attempts"]] == [(0, 1), (40, 2)]
    last = found["attempts"][-1]
    assert {"python", "torch", "code"} <= set(last["versions"])
    assert last["hardware"]["cores"] >= 1
    assert socket.gethostname() not in json.dumps(found).replace(rundir.code_version(), "")
    assert "/" not in json.dumps(last["versions"])


def test_metrics_are_appended_and_forgotten_after_a_checkpoint(url):
    metrics = rundir.Metrics(url)
    for step in (1, 2, 3):
        metrics.append({"step": step, "loss": 1.0 / step})
    metrics.flush()
    assert [line["step"] for line in rundir.metrics(url)] == [1, 2, 3]
    again = rundir.Metrics(url)
    assert [line["step"] for line in again.truncate(2)] == [1, 2]
    again.append({"step": 3, "loss": 0.3})
    again.flush()
    assert [line["step"] for line in rundir.metrics(url)] == [1, 2, 3]
    assert rundir.metrics(url)[-1]["loss"] == 0.3


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path):
    url = str(tmp_path)
    rundir.Metrics(url).append({"step": 1})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "lo')
    assert rundir.metrics(url) == [{"step": 1}]
    assert rundir.Metrics(url).truncate(5) == [{"step": 1}]
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'


def test_a_run_is_done_when_it_says_so(url):
    assert rundir.done(url) is None
    rundir.finish(url, {"checkpoint": "step-0000010"})
    assert rundir.done(url) == {"checkpoint": "step-0000010"}


def test_a_training_has_ended_where_it_names_its_weights(url):
    with pytest.raises(ValueError, match="is not finished"):
        rundir.ended(url)
    rundir.finish(url, {"loss": 1.0})  # of another command
    with pytest.raises(ValueError, match="DONE says nothing of 'checkpoint'"):
        rundir.ended(url)
    rundir.finish(url, {"checkpoint": "step-0000010", "sha256": "a"})
    assert rundir.ended(url)["sha256"] == "a"


@pytest.mark.parametrize("name", ["config", "environment", "done"])
def test_a_file_of_a_run_that_is_no_object_is_named(url, name):
    file = storage.join(url, "DONE" if name == "done" else f"{name}.json")
    storage.write(file, b"[]")
    with pytest.raises(ValueError, match=f"{file} holds no JSON object"):
        getattr(rundir, name)(url)


def test_the_code_version_begins_with_the_packages_and_holds_no_path():
    assert rundir.code_version().startswith("0.")
    assert "/" not in rundir.code_version()
