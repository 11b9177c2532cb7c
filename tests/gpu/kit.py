"""The GPU kit: all tests that need a GPU, and what a step of training takes there, without a network.

    infra/jobs/gpu.sh [FOLDER]         installs what is missing from wheels, and calls
    python -m tests.gpu.kit --out FOLDER [--device cpu] [--page infra/gpu.md] [--minutes 25] [--wheels FOLDER]
    python -m tests.gpu.kit --list     the steps and what each may take

    FOLDER/steps/NAME.json   written as a step ends: what it found, on what machine and by which code
    FOLDER/logs/NAME.out     what it said, and .err
    FOLDER/gpu.json          all of them; enough to go on from, on another machine of the same kind
    FOLDER/gpu.md            the same as tables

The same command again runs what is not done: what failed, what there was no time for, and everything that was found by
other code, on other hardware or with other versions. With `--device cpu` everything is tiny and runs on a CPU.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra import log
from infra.errors import Lost, exit_on_loss, refuse
from tests.gpu import page
from tests.gpu.needed import missing
from tests.gpu.steps import ALL, STEPS, Step
from tests.gpu.wheels import MISSING
from tests.support.ceph import die_with_parent

ROOT = Path(__file__).parents[2]
CODE = ("defense", "eval", "infra", "pipeline", "poison", "tests", "train")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--page", type=Path, help="where the tables go, beside the folder")
    parser.add_argument("--minutes", type=float, default=ALL / 60, help="no step is begun that might take longer")
    parser.add_argument("--wheels", type=Path, help="the folder that gpu-wheels made, which says what is not in it")
    parser.add_argument("--list", action="store_true", help="name the steps, and touch nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, steps: Sequence[Step] = STEPS) -> int:
    given = parsed(argv)
    if given.list:
        print("\n".join(f"{step.name:<10} {step.seconds / 60:>4.1f} minutes at most   {step.title}" for step in steps))
        return 0
    if lacking := missing():
        refuse(
            f"this Python ({sys.executable}) lacks {', '.join(lacking)}: `make gpu-wheels`, where there is a network, "
            "makes a folder of wheels; bring it along, and name it in WHEELS"
        )
    return exit_on_loss(lambda: run(given, steps))


def run(given: argparse.Namespace, steps: Sequence[Step]) -> str:
    """Run what is not done, write records and pages. Returns the last line. Raises Lost if something is not done."""
    machine = this_machine(given.device)
    records, waiting = recorded(given.out, machine), {}
    deadline = time.monotonic() + given.minutes * 60
    write(given, machine, records, waiting, steps)
    for step in steps:
        if records.get(step.name, {}).get("status") == "done":
            log.say(f"{step.name}: done before")
            continue
        left = deadline - time.monotonic()
        if step.seconds > left:
            waiting[step.name] = f"may take {step.seconds / 60:.0f} minutes, {max(left, 0) / 60:.1f} were left"
            continue
        log.say(f"{step.name}: {step.title}")
        records[step.name] = taken(step, given, machine)
        write(given, machine, records, waiting, steps)
        log.say("{step}: {status} in {seconds:.0f} s {why}".format(**records[step.name]).rstrip())
    tables = write(given, machine, records, waiting, steps)
    undone = {step.name: records.get(step.name, {}).get("status", "not run") for step in steps}
    undone = {name: status for name, status in undone.items() if status != "done"}
    where = f"{given.out / 'gpu.json'}, as tables {tables}"
    if undone:
        told = ", ".join(f"{name} {status}" for name, status in undone.items())
        raise Lost(f"{len(undone)} of {len(steps)} steps are not done ({told}): the same command runs them; {where}")
    lacking = [name for name, record in records.items() if page.lacking(record["found"])]
    return f"{len(steps)} steps are done{f', {chr(44).join(lacking)} but for a part' if lacking else ''}; {where}"


def this_machine(device: str) -> dict[str, Any]:
    """What a record holds for: the code's own bytes, hardware and versions. Raises ValueError where there is no GPU."""
    import torch  # not above: where it is missing, the kit says so

    from infra import rundir

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"torch {torch.__version__} sees no GPU here: `make gpu DEVICE=cpu` tries the kit, with tiny sizes, without"
        )
    hardware, versions = rundir.hardware(), rundir.versions()
    del hardware["memory_gib"]  # of some virtual machines it grows with what is used
    commit = versions.pop("code")  # says less than the digest, and changes when a page is committed
    if device == "cuda":
        shape = torch.cuda.get_device_properties(0)
        hardware |= {
            "gpu_memory_gib": round(shape.total_memory / 2**30, 1),
            "capability": f"{shape.major}.{shape.minor}",
        }
    versions |= {"torch": torch.__version__, "cuda": torch.version.cuda} | _faiss()
    key = {"device": device, "code": code(), "hardware": hardware, "versions": versions}
    return {"key": json.loads(json.dumps(key)), "commit": commit}


def _faiss() -> dict[str, str]:
    return {
        found.name: found.version
        for name in ("faiss-gpu", "faiss-cpu")
        for found in importlib.metadata.distributions(name=name)
    }


def code(root: Path = ROOT) -> str:
    """A digest of the programs here, committed or not: the kit also runs from a copy without git."""
    files = (path for name in CODE for kind in ("*.py", "models/*.json") for path in (root / name).rglob(kind))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def recorded(out: Path, machine: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was found before by this code on such a machine, by step. Raises ValueError for a file that is not JSON."""
    from infra import storage

    known = storage.read_json(str(out / "gpu.json"))["steps"] if (out / "gpu.json").exists() else []
    known += [storage.read_json(str(path)) for path in sorted((out / "steps").glob("*.json"))]
    return {record["step"]: record for record in known if record["key"] == machine["key"]}


def taken(step: Step, given: argparse.Namespace, machine: dict[str, Any]) -> dict[str, Any]:
    """Run one step as a process; its record, which is written, too."""
    from infra import storage

    logs = given.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    out, err = logs / f"{step.name}.out", logs / f"{step.name}.err"
    start = time.monotonic()
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *step.command(given.device, str(given.out.absolute()))],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=die_with_parent,
        )
        try:
            status = "failed" if process.wait(step.seconds) else "done"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            if process.returncode is None:  # not at its end: then all that it started goes, too
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    found = _object(_last(out))
    if status == "done" and found is None:
        status, why = "failed", f"its last line is no JSON object; see logs/{out.name}"
    elif status == "out of time":
        why = f"ended after {step.seconds} s; see logs/{err.name}"
    else:
        told = f"see logs/{out.name}" if found else f"{_last(err)[:200] or 'it said nothing'}; see logs/{err.name}"
        why = "" if status == "done" else told
    record = {"step": step.name, "status": status, "why": why, "seconds": round(time.monotonic() - start, 1)}
    record |= {"found": found, "key": machine["key"]}
    storage.write_json(str(given.out / "steps" / f"{step.name}.json"), record)
    return record


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    usual = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return usual | dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}


def _last(file: Path) -> str:
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def write(
    given: argparse.Namespace,
    machine: dict[str, Any],
    records: dict[str, dict[str, Any]],
    waiting: dict[str, str],
    steps: Sequence[Step],
) -> Path:
    """All that is known, as one JSON and one page. Returns where the page lies."""
    from infra import storage

    there = given.wheels / MISSING if given.wheels else None
    left_out = storage.read_json(str(there)) if there and there.exists() else {}
    known = machine | {"without": left_out, "waiting": waiting, "steps": [*records.values()]}
    storage.write_json(str(given.out / "gpu.json"), known)
    text = page.made(known, steps).encode()
    storage.write(str(given.out / "gpu.md"), text)
    if given.page and records:
        storage.write(str(given.page), text)
    return given.page if given.page and records else given.out / "gpu.md"


if __name__ == "__main__":
    sys.exit(main())
