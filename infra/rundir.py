"""A run folder: what was asked for, on what it ran, what came of it.

    config.json         the resolved configuration; infra.config.from_json gives an equal object
    environment.json    the data it learned from, by digest; of every start of it its command, versions and hardware
    metrics.jsonl       one line a measurement
    DONE                written last: {"checkpoint", ...}; its presence means finished

Checkpoints and the exported model lie beside them (train.checkpoint, train.model).
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

from infra import differences, storage
from infra.errors import Lost

PACKAGES = ("numpy", "open_clip_torch", "pillow", "pyarrow", "torch", "torchvision")


def check(url: str, config: dict[str, Any], free: Set[str], inputs: dict[str, Any]) -> None:
    """Raises ValueError if something else than this run is in the folder. Writes nothing.

    config: what config.json shall hold. free: its fields that may differ when the same command comes back: worker
    counts, and folders, for which the digests in `inputs` stand (environment.json holds them).
    """
    if not storage.exists(storage.join(url, "config.json")):
        if others := storage.names(url):
            raise ValueError(f"{url} exists and is not a run of ours (it holds {others[0]!r}): choose another --out")
        return
    found, wanted = (
        _given({name: value for name, value in one.items() if name not in free}) for one in (_config(url), config)
    )
    learned = environment(url)["inputs"] if storage.exists(storage.join(url, "environment.json")) else inputs
    for before, now in ((found, wanted), (learned, inputs)):
        if before != now:
            told = differences.first(before, now)
            raise ValueError(f"{url} exists and differs: {told}; choose another --out, or remove that folder")


def _given(config: Any) -> Any:
    """Without what is off, None or False, at any depth: a run of before a setting existed is one without it."""
    if not isinstance(config, dict):
        return config
    return {name: _given(value) for name, value in config.items() if value is not None and value is not False}


def claim(url: str, config: dict[str, Any], free: Set[str], inputs: dict[str, Any]) -> None:
    """Reserve the folder for this run. Raises ValueError as `check` does."""
    check(url, config, free, inputs)
    storage.create(storage.join(url, "config.json"), storage.dump_json(config))
    check(url, config, free, inputs)  # another one may have been faster
    if not storage.exists(file := storage.join(url, "environment.json")):
        storage.write_json(file, {"inputs": inputs, "attempts": []})


def stands(url: str) -> None:
    """Raises Lost if the folder was removed since it was claimed: whatever is written next would bring back a part."""
    if not storage.exists(storage.join(url, "config.json")):
        raise Lost(f"the folder of the run was removed while it went on: {url}; nothing more is written")


def config(url: str) -> dict[str, Any]:
    """What config.json holds. Raises ValueError if the folder is not a run."""
    if not storage.exists(storage.join(url, "config.json")):
        raise none_at(url, "config.json")
    return _config(url)


def none_at(url: str, lacks: str) -> ValueError:
    """The error for what is no run, with the way to make one of it where it may be weights from elsewhere."""
    path = storage.local(url)
    if path is None or not (path.is_file() or (path / "open_clip_config.json").is_file()):
        return ValueError(f"no run at {url}: it has no {lacks}")
    what, named = ("a file", " --model NAME") if path.is_file() else ("a folder of weights", "")
    return ValueError(
        f"no run at {url}: that is {what}, and of weights from elsewhere a run is made by: "
        f"antidote adopt {url}{named} --out RUN"
    )


def _config(url: str) -> dict[str, Any]:
    return storage.read_object(storage.join(url, "config.json"))


def record_attempt(url: str, attempt: dict[str, Any]) -> None:
    """Add this start of the run to environment.json, e.g. its step, ranks and command, with versions and hardware."""
    known = environment(url)
    known["attempts"].append(attempt | {"versions": versions(), "hardware": hardware()})
    storage.write_json(storage.join(url, "environment.json"), known)


def environment(url: str) -> dict[str, Any]:
    """{"inputs": what was learned from, by digest, "attempts": every start of the run}."""
    return storage.read_object(storage.join(url, "environment.json"), "inputs", "attempts")


def versions() -> dict[str, Any]:
    """Of Python, of the packages that matter for numbers, and of this code."""
    found: dict[str, Any] = {"python": platform.python_version(), "code": code_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def code_version() -> str:
    """Version and git commit of this code, "+changes" where files differ from it; the version alone without git."""
    try:
        version = importlib.metadata.version("clip-antidote")
    except importlib.metadata.PackageNotFoundError:  # sent to a cluster's worker that has only our dependencies
        version = "not installed"
    root = Path(__file__).parents[1]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return version
    return f"{version} {commit[:12]}{'+changes' if git('status', '--porcelain', '-uno') else ''}"


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs of this machine; not its name or address."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    torch = sys.modules.get("torch")  # infra knows no torch; where a run uses it, it is loaded
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


class Appended:
    """A file that grows: appended to on a local disk; elsewhere kept in memory and written whole by `flush`."""

    def __init__(self, url: str) -> None:
        self.url, self.path = url, storage.local(url)
        self.data = bytearray()
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif storage.exists(url):
            self.data += storage.read(url)

    def append(self, data: bytes) -> None:
        if self.path is None:
            self.data += data
            return
        with open(self.path, "ab") as file:
            file.write(data)

    def replace(self, data: bytes) -> None:
        self.data = bytearray(data)
        storage.write(self.url, data)

    def flush(self) -> None:
        """From any thread: the copy is one step, whatever is appended meanwhile."""
        if self.path is None:
            storage.write(self.url, bytes(self.data))


class Metrics:
    """metrics.jsonl: lines with a `step`, which count the steps taken."""

    def __init__(self, url: str) -> None:
        self.file = Appended(storage.join(url, "metrics.jsonl"))

    def append(self, line: dict[str, Any]) -> None:
        self.file.append(json.dumps(line).encode() + b"\n")

    def flush(self) -> None:
        self.file.flush()

    def truncate(self, step: int) -> list[dict[str, Any]]:
        """Forget what came after `step`: a resumed run will say it again. Returns what is left."""
        kept = [line for line in _lines(self.file.url) if line["step"] <= step]
        self.file.replace(b"".join(json.dumps(line).encode() + b"\n" for line in kept))
        return kept


def metrics(url: str) -> list[dict[str, Any]]:
    """Every line of a run's metrics.jsonl; [] before the first."""
    return _lines(storage.join(url, "metrics.jsonl"))


def _lines(url: str) -> list[dict[str, Any]]:
    if not storage.exists(url):
        return []
    whole, _, _ = storage.read(url).rpartition(b"\n")  # a killed run may leave half a line at the end
    return [json.loads(line) for line in whole.split(b"\n") if line]


def finish(url: str, result: dict[str, Any]) -> None:
    storage.write_json(storage.join(url, "DONE"), result)


def done(url: str) -> dict[str, Any] | None:
    """What `finish` wrote, else None."""
    file = storage.join(url, "DONE")
    return storage.read_object(file) if storage.exists(file) else None


def ended(url: str) -> dict[str, Any]:
    """What `finish` wrote of a model that was trained, or adopted: {"checkpoint", "sha256", "steps"}.

    Raises ValueError if it is not finished, or if it is a run of something else.
    """
    found = done(url)
    if found is None:
        raise ValueError(f"the run at {url} is not finished: run its command again, then this one (it has no DONE)")
    return storage.holding(storage.join(url, "DONE"), found, "checkpoint", "sha256")
