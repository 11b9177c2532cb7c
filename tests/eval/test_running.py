"""Steps of a study as processes: in which order, side by side, what a failure takes with it, and how all ends.

The processes are a stand-in for `antidote`, which says what it was told and makes its --out.
"""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from eval.studies import plan, running, steps
from eval.studies.running import Workshop
from eval.studies.steps import Row
from infra.errors import Lost
from tests.eval.test_plan import SMALL
from tests.support.story import alive

STAND_IN = """#!/usr/bin/env bash
echo "begin $*" >>"$TOLD"
if [[ -n ${BROKEN:-} && $* =~ $BROKEN ]]; then echo "broken on purpose" >&2; exit 1; fi
if [[ -n ${SLOW:-} && $* =~ $SLOW ]]; then sleep "$SECONDS_LONG"; fi
echo "end $*" >>"$TOLD"
while (($#)); do if [[ $1 == --out ]]; then out=$2; fi; shift; done
mkdir -p "$out" && touch "$out/DONE"
echo "done: $out"
"""


class Place:
    """A study in a folder of its own, with a stand-in."""

    def __init__(self, folder: Path) -> None:
        self.out, self.told = folder / "my study", folder / "told"
        (folder / "small.toml").write_text(SMALL)
        self.rows = steps.rows(plan.read(str(folder / "small.toml")), str(self.out))
        self.told.write_text("")

    def shop(self, rows: list[Row] | None = None, jobs: int = 2, hours: float | None = None) -> Workshop:
        return Workshop(str(self.out), self.rows if rows is None else rows, jobs, hours)

    def commands(self, what: str = "begin") -> list[str]:
        lines = self.told.read_text().splitlines()
        return [line.removeprefix(f"{what} ") for line in lines if line.startswith(what)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    script = tmp_path / "antidote"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    monkeypatch.setattr(running, "ENTRY", (str(script),))
    monkeypatch.setattr(running, "POLL", 0.01)
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    return Place(tmp_path)


def test_each_step_is_run_once_after_what_it_needs_and_the_most_useful_rows_end_first(place: Place):
    ended: list[str] = []
    place.shop(jobs=1).work(lambda row, _: ended.append(row.name))
    commands = place.commands()
    assert len(commands) == len(set(commands)) == len({step for row in place.rows for step in row.steps})
    assert ended == [row.name for row in place.rows]
    order = {command: number for number, command in enumerate(commands)}
    for step in {step for row in place.rows for step in row.steps}:
        assert all(order[" ".join(need.command)] < order[" ".join(step.command)] for need in step.needs)


def test_what_ended_well_is_passed_over_but_measured_again(place: Place):
    place.shop().work(lambda *_: None)
    again = place.shop()
    measures = {step for row in place.rows for step in row.measures}
    assert set(again.waiting) == measures and again.minutes() == 0
    before = len(place.commands())
    seconds: list[float] = []
    again.work(lambda _, took: seconds.append(took))
    assert len(place.commands()) == before + len(measures)
    assert all(took > 0 for took in seconds), "the training's own time is remembered"
    (place.out / "small-s0/clean/DONE").unlink()
    (place.out / "small-s0/clean").rmdir()
    assert [step.label for step in place.shop().waiting if step not in measures] == ["clean small-s0/clean"]


def test_only_what_the_given_rows_need_is_run(place: Place):
    row = next(row for row in place.rows if row.name == "b.floor.s1")
    place.shop([row]).work(lambda *_: None)
    assert len(place.commands()) == len(row.steps) == 4


def test_steps_that_share_a_port_are_never_side_by_side(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLOW", "prepare")
    monkeypatch.setenv("SECONDS_LONG", "0.3")
    place.shop(jobs=4).work(lambda *_: None)
    both = [line for line in place.told.read_text().splitlines() if " prepare " in line]
    assert [line.split()[0] for line in both] == ["begin", "end", "begin", "end"]


def test_what_fails_takes_with_it_what_needs_it_and_is_named_at_the_end(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("BROKEN", "lr 2e-3 .*mmcl-a-2e-3$")
    ended: list[str] = []

    def finished(row: Row, seconds: float) -> None:
        if row.name == "b.floor.s0":
            raise ValueError("no scores of it")
        ended.append(row.name)

    with pytest.raises(Lost) as lost:
        place.shop().work(finished)
    gone = {"a.mmcl.2e-3.s0", "a.mmcl.2e-3.s1", "a.after.1.s0", "b.floor.s0"}
    assert set(ended) == {row.name for row in place.rows} - gone
    said = str(lost.value)
    for part in (
        "cured small-s0/mmcl-a-2e-3 (broken on purpose",
        "small-s1/mmcl-a-2e-3",
        "b.floor.s0 (no scores of it)",
    ):
        assert part in said
    assert "/logs/cured-small-s0-mmcl-a-2e-3.log" in said
    assert capsys.readouterr().err.count("broken on purpose") == 2
    monkeypatch.delenv("BROKEN")
    place.shop().work(finished=lambda *_: None)


def test_after_so_many_hours_nothing_more_is_started(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLOW", "prepare")
    monkeypatch.setenv("SECONDS_LONG", "0.4")
    ended: list[str] = []
    place.shop(hours=0.2 / 3600).work(lambda row, _: ended.append(row.name))
    assert ended == [] and len(place.commands("end")) == 1, "what was running may end"


def test_a_folder_has_one_study_at_a_time_and_what_one_left_behind_counts(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(running, "GRACE", 0.1)
    (place.out).mkdir()
    with running._alone(place.out) as lock:
        left = subprocess.Popen(["sleep", "30"], pass_fds=(lock,))
    try:
        with pytest.raises(ValueError, match="a study is at work in"):
            place.shop().work(lambda *_: None)
    finally:
        left.kill()
        left.wait()
    place.shop(place.rows[:1]).work(lambda *_: None)


def test_sigterm_ends_every_process_and_the_same_command_does_the_rest(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLOW", "train .*small-s0/a$")
    monkeypatch.setenv("SECONDS_LONG", "60")
    shop, seen = place.shop(), []

    def stop() -> None:
        while not any("small-s0/a" in one.step.label for one in shop.running):
            time.sleep(0.01)
        seen.extend(one.process.pid for one in shop.running)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    start = time.monotonic()
    with pytest.raises(Lost, match="told to end"):
        shop.work(lambda *_: None)
    thread.join()
    assert time.monotonic() - start < 20
    assert seen and not any(alive(pid) for pid in seen)
    monkeypatch.delenv("SLOW")
    ended: list[str] = []
    place.shop().work(lambda row, _: ended.append(row.name))
    assert len(ended) == len(place.rows)
    assert sum("prepare" in command for command in place.commands()) == 2, "what had ended is not done again"
