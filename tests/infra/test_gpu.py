"""The GPU kit (infra/jobs/gpu.sh, tests/gpu): what it runs, keeps and says. What it runs is tried on a CPU."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from defense.objectives.cleanclip import CleanClip
from defense.objectives.roclip import RoClip
from tests.bench.pool import MATCHED, Training
from tests.gpu import kit, marked, matched, needed, page, passes, towers, wheels
from tests.gpu.steps import ALL, LONGEST, STEPS, Step
from tests.support import gpu, timing
from train.objective import Clock
from train.step import forward

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def step(what: str, seconds: int = 60) -> Step:
    return Step(what, f"a step that {what}", (), ("tests.support.gpu_steps", what, "{folder}"), seconds)


def run(out: Path, *steps: Step, minutes: float = 25) -> int:
    return kit.main(["--out", str(out), "--device", "cpu", "--minutes", str(minutes)], steps)


def begun(out: Path) -> list[str]:
    """What was started since it was last asked."""
    names = (out / "begun").read_text().split() if (out / "begun").exists() else []
    (out / "begun").unlink(missing_ok=True)
    return names


def statuses(out: Path) -> dict[str, str]:
    return {record["step"]: record["status"] for record in json.loads((out / "gpu.json").read_text())["steps"]}


# The kit


def test_no_step_and_not_all_of_them_may_take_longer_than_promised():
    assert all(one.seconds <= LONGEST == 8 * 60 for one in STEPS)
    assert sum(one.seconds for one in STEPS) <= ALL == 25 * 60
    assert len({one.name for one in STEPS}) == len(STEPS)


def test_what_is_done_is_passed_over_and_the_rest_is_run_again(tmp_path, capsys):
    steps = step("works"), step("breaks"), step("hangs", 1), step("mumbles"), step("part")
    assert run(tmp_path, *steps) == 1
    assert begun(tmp_path) == [one.name for one in steps]
    said = capsys.readouterr().err
    assert "3 of 5 steps are not done (breaks failed, hangs out of time, mumbles failed)" in said.splitlines()[-1]
    assert statuses(tmp_path) == {
        "works": "done",
        "breaks": "failed",
        "hangs": "out of time",
        "mumbles": "failed",
        "part": "done",
    }
    text = (tmp_path / "gpu.md").read_text()
    assert "**failed**: RuntimeError: no kernel image is available; see logs/breaks.err" in text
    assert "**out of time**: ended after 1 s" in text
    assert "done; **but for a part**, see below" in text and "Not measured: the rest." in text
    assert "no number here says anything of speed" in text
    assert run(tmp_path, *steps[:1], *steps[4:]) == 0
    assert begun(tmp_path) == []
    assert "2 steps are done, part but for a part; " in capsys.readouterr().out.splitlines()[-1]
    assert run(tmp_path, *steps[:2]) == 1
    assert begun(tmp_path) == ["breaks"]


def test_of_a_step_that_is_out_of_time_nothing_goes_on(tmp_path):
    assert run(tmp_path, step("crowds", 3)) == 1
    child = int((tmp_path / "child").read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE, "nobody has asked for its status"


def test_the_one_json_is_enough_to_go_on_from(tmp_path):
    assert run(tmp_path / "one", step("works")) == 0
    (tmp_path / "two").mkdir()
    (tmp_path / "one/gpu.json").rename(tmp_path / "two/gpu.json")
    assert run(tmp_path / "two", step("works"), step("part")) == 0
    assert begun(tmp_path / "two") == ["part"]
    assert statuses(tmp_path / "two") == {"works": "done", "part": "done"}
    begun(tmp_path / "one")
    assert run(tmp_path / "one", step("works")) == 0, "so are the records of the steps"
    assert begun(tmp_path / "one") == []


def test_what_other_code_found_is_found_anew(tmp_path, monkeypatch):
    assert run(tmp_path, step("works")) == 0
    monkeypatch.setattr(kit, "code", lambda: "other")
    assert run(tmp_path, step("works")) == 0
    assert begun(tmp_path) == ["works", "works"]
    assert len(json.loads((tmp_path / "gpu.json").read_text())["steps"]) == 1


def test_the_code_is_known_by_its_bytes(tmp_path):
    (tmp_path / "train").mkdir()
    file = tmp_path / "train/loop.py"
    file.write_text("a = 1\n")
    before = kit.code(tmp_path)
    assert kit.code(tmp_path) == before
    file.write_text("a = 2\n")
    assert kit.code(tmp_path) != before
    file.write_text("a = 1\n")
    file.rename(tmp_path / "train/order.py")
    assert kit.code(tmp_path) != before


def test_a_record_holds_for_what_does_not_change_by_itself():
    key = kit.this_machine("cpu")["key"]
    assert "memory_gib" not in key["hardware"] and "code" not in key["versions"]
    assert key["code"] == kit.code() and key["versions"]["torch"] == torch.__version__


def test_what_is_set_outside_holds_for_the_steps(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert kit._environment()["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert kit._environment()["OMP_NUM_THREADS"] == "3"


def test_tables_go_to_the_page_once_there_is_something_to_tell(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/missing.json").write_text('{"faiss-gpu": "129 MiB"}')
    machine, one = kit.this_machine("cpu"), step("works")
    words = ["--out", f"{tmp_path}/out", "--page", f"{tmp_path}/page.md", "--wheels", f"{tmp_path}/wheels"]
    given = kit.parsed([*words, "--device", "cpu"])
    assert kit.write(given, machine, {}, {}, [one]) == tmp_path / "out/gpu.md"
    assert not (tmp_path / "page.md").exists()
    record = {"step": "works", "status": "done", "why": "", "seconds": 1, "found": {}, "key": machine["key"]}
    assert kit.write(given, machine, {"works": record}, {}, [one]) == tmp_path / "page.md"
    assert (tmp_path / "page.md").read_text() == (tmp_path / "out/gpu.md").read_text()
    assert "Not in the folder of wheels: faiss-gpu (129 MiB)." in (tmp_path / "page.md").read_text()


def test_only_an_object_is_what_a_step_found():
    assert [kit._object(line) for line in ("", "works", "[1]", '{"a": 1}')] == [None, None, None, {"a": 1}]


def test_a_step_that_might_not_fit_is_not_begun_and_that_is_said(tmp_path, capsys):
    assert run(tmp_path, step("works", 400), step("part", 30), minutes=1) == 1
    assert begun(tmp_path) == ["part"]
    assert "(works not run)" in capsys.readouterr().err.splitlines()[-1]
    assert "**not run**: may take 7 minutes, 1.0 were left" in (tmp_path / "gpu.md").read_text()


def test_a_killed_kit_leaves_what_was_done_and_no_process(tmp_path):
    code = (
        "from tests.gpu import kit, steps; "
        "words = [('tests.support.gpu_steps', name, '{folder}') for name in ('works', 'hangs')]; "
        "two = [steps.Step(tiny[1], 'a step', (), tiny, 60) for tiny in words]; "
        f"kit.main(['--device', 'cpu', '--out', {str(tmp_path)!r}], two)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists() or "hangs" not in (tmp_path / "begun").read_text():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    (child,) = psutil.Process(killed.pid).children()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    child.wait(timeout=20)
    begun(tmp_path)
    assert statuses(tmp_path) == {"works": "done"}
    assert run(tmp_path, step("works"), step("part")) == 0
    assert begun(tmp_path) == ["part"]


def test_what_python_lacks_is_named_and_where_it_comes_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kit, "missing", lambda: ["tyro", "ftfy"])
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "out", step("works"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "lacks tyro, ftfy: `make gpu-wheels`" in line
    assert not (tmp_path / "out").exists()


def test_all_that_the_kit_imports_is_named():
    """Whatever it loads from elsewhere is a package of the list, or one that a package of the list needs."""
    assert needed.missing() == []
    brought = {package.name for package in needed.PACKAGES if not package.usual}
    for one in ("open-clip-torch", "ftfy", "tyro"):
        wants = {want.split(">")[0].split("=")[0].split(";")[0].strip() for want in requirements(one)}
        assert wants - {"typing-extensions"} <= {package.name for package in needed.PACKAGES}, one
        assert one in brought


def requirements(name: str) -> list[str]:
    from importlib.metadata import requires

    return [one for one in requires(name) or [] if "extra" not in one and "python_version" not in one]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_how_to_try_it(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        kit.main(["--out", str(tmp_path / "out")])
    assert "sees no GPU here: `make gpu DEVICE=cpu` tries the kit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_page_of_a_gpu_names_it():
    key = {"device": "cuda", "code": "0123", "hardware": {"gpus": ["NVIDIA H1"], "cores": 2, "processor": "P"}}
    versions = {"python": "3.12", "torch": "2.11", "cuda": "13.0", "open_clip_torch": "3.3.0"}
    found = {"ways": ["cloned", "torch"], "cloned_ms_500": 2.5, "torch_ms_500": 1.25, "roclip_torch_over_clip_500": 0.9}
    record = {"step": "roclip", "status": "done", "why": "", "seconds": 3}
    record["found"] = found | {"clip_step_ms_500": 9.0, "not_measured": "faiss-gpu: it is not there"}
    known = {"key": key | {"versions": versions}, "steps": [record], "waiting": {}, "without": {"faiss-gpu": "129 MiB"}}
    text = page.made(known, STEPS)
    assert text.startswith("# What a GPU makes of it: NVIDIA H1\n") and "tiny" not in text
    assert "| 500 | torch | 1.25 | 0.900 |" in text and "| 500 | cloned | 2.50 | not measured |" in text
    assert "Not measured: faiss-gpu: it is not there." in text
    assert "Not in the folder of wheels: faiss-gpu (129 MiB)." in text
    assert text.count("**not run**: the kit has not come to it") == len(STEPS) - 1


def test_a_cell_shows_what_was_measured_be_it_nothing_and_breaks_no_table():
    assert [page.shown(value, ".1f") for value in (0, 0.04, None, "?")] == ["0.0", "0.0", *["not measured"] * 2]
    assert page.table(["a"], [["b|c"]]).splitlines()[-1] == "| b\\|c |"


def test_tests_that_were_skipped_are_a_part_that_is_lacking():
    found = {"tests": {}, "passed": 3, "failed": 1, "skipped": 2}
    assert page.outcome({"status": "done", "found": found}) == "done; 3 passed, 1 failed, 2 skipped"
    assert page.lacking(found) and not page.lacking(found | {"skipped": 0}) and not page.lacking(None)


# Wheels


def test_a_group_of_wheels_goes_in_whole_or_not_at_all(tmp_path, monkeypatch):
    sizes = {"a==1": 40, "big>=2": 30, "its-library": 50, "small": 60}

    def fetch(wanted: str, folder: Path, version: str) -> str | None:
        if wanted not in sizes:
            return "no such package"
        (folder / f"{wanted[:3]}.whl").write_bytes(bytes(sizes[wanted]))
        return None

    monkeypatch.setattr(wheels, "fetch", fetch)
    groups = [("a==1",), ("big>=2", "its-library"), ("small",), ("gone",)]
    left_out = wheels.gather(groups, tmp_path, "3.12", 100)
    assert left_out == {"big": "0.0 MiB and more, of which 0.0 MiB are free", "gone": "no such package"}
    assert {path.name for path in tmp_path.iterdir()} == {"a==.whl", "sma.whl"}


def test_wheels_have_the_versions_of_the_lock():
    lock = (ROOT / "requirements.lock").read_text()
    for package in needed.PACKAGES:
        if not package.usual:
            assert wheels.pinned(package.name, lock).startswith(f"{package.name}=="), package.name
    assert wheels.pinned("open-clip", lock) == "open-clip"


# What it measures


def test_open_clips_step_and_ours_learn_the_same():
    given = timing.batch("tiny-vit", 8, CPU)
    ours, theirs = towers.ours("tiny-vit", given, CPU), towers.open_clips("tiny-vit", given, CPU)
    for _ in range(3):
        assert float(ours()) == pytest.approx(float(theirs()), rel=1e-5)


def test_two_passes_are_the_same_step_where_no_batchnorm_is():
    encoder = timing.encoder("tiny-vit", CPU)
    given = timing.batch("tiny-vit", 8, CPU, passes.VIEWS["images"], passes.VIEWS["texts"])
    one, two = (
        forward(learner, CleanClip(), nn.Module(), given, Clock(0, 0, 1, 0))[0]
        for learner in (encoder, passes.Apart(encoder))
    )
    assert {name: float(part.detach()) for name, part in one.parts.items()} == pytest.approx(
        {name: float(part.detach()) for name, part in two.parts.items()}, rel=1e-5
    )


def test_the_cloned_bank_matches_as_the_pool_does():
    scene = Training("tiny-vit", 8, 1, CPU)
    objective = RoClip(pool_size=50, search="torch")
    pool = scene.state(objective)
    bank = matched.cloned(pool)
    for _ in range(8):  # past the bank's end; it holds a whole number of batches then, as the released one does
        found = [forward(scene.encoder, objective, state, scene.batch, MATCHED)[0] for state in (pool, bank)]
        assert float(found[0].total.detach()) == pytest.approx(float(found[1].total.detach()), rel=1e-4)
        scene.batch["images"]["image"] = scene.batch["images"]["image"].flip(0)


def test_only_files_with_such_tests_are_loaded():
    found = [Path(path).relative_to(ROOT).as_posix() for path in marked.files()]
    assert {"tests/train/test_gpu.py", "tests/train/test_step.py", "tests/defense/test_pool.py"} <= set(found)
    assert len(found) < 10


def test_a_gpu_test_says_why_it_is_skipped(monkeypatch):
    monkeypatch.setattr(gpu.torch, "cuda", SimpleNamespace(is_available=lambda: True, device_count=lambda: 1))
    assert gpu.device() == torch.device("cuda", 0)
    with pytest.raises(pytest.skip.Exception, match="needs 2 GPUs, and this machine has 1"):
        gpu.device(2)
    monkeypatch.setattr(gpu.torch, "cuda", SimpleNamespace(is_available=lambda: False))
    monkeypatch.delenv(gpu.INSTEAD, raising=False)
    with pytest.raises(pytest.skip.Exception, match="torch sees no GPU"):
        gpu.device()
    monkeypatch.setenv(gpu.INSTEAD, "cpu")
    assert gpu.device() == CPU
    with pytest.raises(pytest.skip.Exception, match="on a CPU: no such search"):
        gpu.device(why_not_cpu="no such search")


@pytest.mark.slow
def test_the_kit_runs_to_its_end_on_a_cpu_and_a_second_time_does_nothing(tmp_path):
    out, environment = tmp_path / "out", os.environ | {"DEVICE": "cpu", "PYTHON": sys.executable}
    committed = (ROOT / "infra/gpu.md").read_text() if (ROOT / "infra/gpu.md").exists() else None
    for again in (False, True):
        done = subprocess.run(
            [ROOT / "infra/jobs/gpu.sh", out],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(
            f"{len(STEPS)} steps are done, tests but for a part; {out}/gpu.json"
        )
        assert done.stderr.count("done before") == again * len(STEPS)
    known = json.loads((out / "gpu.json").read_text())
    found = {record["step"]: record["found"] for record in known["steps"]}
    assert set(statuses(out)) == {one.name for one in STEPS} and set(statuses(out).values()) == {"done"}
    assert found["tests"]["failed"] == 0 and found["tests"]["passed"] >= 7
    assert all(one["why"].startswith("NOT TESTED on a CPU: ") for one in skipped(found["tests"]))
    for name in ("RN50", "ViT-B-32"):
        for one in found[name].values():
            assert {"step_over_open_clip", "run_images_per_second", "run_data_wait_share"} <= one.keys()
    assert all(one["one_over_two"] > 0 for one in found["cleanclip"].values())
    assert found["roclip"]["roclip_cloned_over_clip_500"] > 0 < found["roclip"]["roclip_torch_over_clip_300"]
    assert found["decoding"]["256"]["device_over_host"] > 0 < found["decoding"]["256"]["apart"] < 1
    text = (out / "gpu.md").read_text()
    assert all(f"| {one.name} |" in text for one in STEPS) and "| 8 |" in text and "| 500 | cloned |" in text
    assert "| 256 |" in text
    assert committed == ((ROOT / "infra/gpu.md").read_text() if (ROOT / "infra/gpu.md").exists() else None)


def skipped(tests: dict[str, dict[str, dict[str, str]]]) -> list[dict[str, str]]:
    return [one for one in tests["tests"].values() if one["outcome"] == "skipped"]
