"""What a resumed run needs, beside its checkpoint, to end with the same last bits."""

import json
import os
from pathlib import Path

import pytest
import torch

from infra import rundir
from tests.support.drawn import drawn
from tests.support.stopping import stop
from train import checkpoint, exactness
from train.objectives.clip import Clip
from train.presets import Recipe
from train.training import Pretraining

RECIPE = Recipe(batch=16, epochs=3, lr=3e-3)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pretraining(place: Path, name: str) -> Pretraining:
    if not (place / "data").exists():
        drawn(str(place / "data"), 100, 3)
    return Pretraining(
        objective=Clip(), dataset=str(place / "data"), out=str(place / name), model="tiny-vit", recipe=RECIPE,
        workers=0, checkpoint_steps=5,
    )  # fmt: skip


def started(run: Pretraining, threads: int) -> None:
    """Up to step 8, of which 5 are saved."""
    torch.set_num_threads(threads)
    stop(run, 8)


def weights(run: Pretraining) -> bytes:
    return checkpoint.find(run.out).read(checkpoint.MODEL)


def attempts(run: Pretraining) -> list[tuple[int, int]]:
    return [(start["step"], start["threads"]) for start in rundir.environment(run.out)["attempts"]]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_the_threads_it_began_with_and_ends_the_same_bit_for_bit(tmp_path, capsys, first, then):
    whole, broken = (pretraining(tmp_path, name) for name in ("whole", "broken"))
    torch.set_num_threads(first)
    whole.run()
    started(broken, first)
    torch.set_num_threads(then)
    broken.run()
    assert torch.get_num_threads() == then, "as it was before"
    assert weights(broken) == weights(whole)
    assert attempts(broken) == [(0, first), (5, first)]
    some = "1 thread" if first == 1 else f"{first} threads"
    assert f"with {some} a rank, as this run began; {then} would give other weights\n" in capsys.readouterr().err


def test_where_there_are_too_few_cores_it_goes_on_with_fewer_threads_and_says_what_that_means(
    tmp_path, capsys, monkeypatch
):
    run = pretraining(tmp_path, "run")
    started(run, 2)
    monkeypatch.setattr(exactness, "_cores", lambda: 1)
    torch.set_num_threads(1)
    run.run()
    assert attempts(run) == [(0, 2), (5, 1)]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: what ")]
    assert said == [
        f"warning: what {run.out} began with is not what it goes on with (threads 2 then, 1 now): its weights can "
        "differ in their last bits from those of an undisturbed run"
    ]


def test_a_start_from_nothing_has_its_own_threads(tmp_path, capsys):
    run = pretraining(tmp_path, "run")
    torch.set_num_threads(1)
    stop(run, 2)  # nothing was saved
    started(run, 2)
    torch.set_num_threads(1)
    run.run()
    assert attempts(run) == [(0, 1), (0, 2), (5, 2)]
    assert "began with" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ranks": 2}, "ranks 2 then, 1 now"),
        ({"hardware": {"processor": "an abacus"}}, "processor an abacus then, "),
        ({"versions": {"torch": "0.1"}}, "torch 0.1 then, "),
        ({"hardware": {"gpus": ["a GPU"]}}, "gpus ['a GPU'] then, None now"),
        ({"versions": {"code": "another"}}, None),
    ],
)
def test_what_else_differs_from_the_start_is_said_in_one_line(tmp_path, capsys, change, told):
    run = pretraining(tmp_path, "run")
    started(run, 1)
    place = Path(run.out, "environment.json")
    known = json.loads(place.read_text())
    start = known["attempts"][0]
    known["attempts"][0] = start | {
        name: start[name] | value if isinstance(value, dict) else value for name, value in change.items()
    }
    place.write_text(json.dumps(known))
    capsys.readouterr()
    run.run()
    said = [line for line in capsys.readouterr().err.splitlines() if "undisturbed" in line]
    assert len(said) == (told is not None)
    assert told is None or (told in said[0] and said[0].count(" then, ") == 1)
