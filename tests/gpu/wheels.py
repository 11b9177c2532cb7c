"""The wheels that a machine with a GPU and without a network may lack, in one folder: `make gpu-wheels`.

    python -m tests.gpu.wheels [--out gpu-wheels] [--python-version 3.12] [--also pyarrow] [--limit-mib 60]

For x86-64 Linux, in the versions of requirements.lock. FAISS for GPUs comes last and goes in if there is room for it
and for the CUDA libraries that it needs. What is left out is named in the folder's missing.json with the reason, from
where it comes into the kit's page. Needs pip and a network.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.gpu.needed import PACKAGES

ROOT = Path(__file__).parents[2]
MISSING = "missing.json"
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)  # pip takes a platform to the letter, not those below it
FAISS = ("faiss-gpu>=1.14.3", "nvidia-cuda-runtime-cu12<13", "nvidia-cublas-cu12<13", "nvidia-curand-cu12<11")


def pinned(name: str, lock: str) -> str:
    """name==version as the lock has it, else the name."""
    found = re.search(rf"^{re.escape(name)}==[^\s;]+", lock, re.MULTILINE)
    return found.group() if found else name


def fetch(wanted: str, folder: Path, python_version: str) -> str | None:
    """Download one wheel without what it needs; the reason if there is none."""
    platforms = [f"manylinux_2_{glibc}_x86_64" for glibc in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    words = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python_version]
    words += [word for platform in platforms for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run([*command, "--dest", str(folder), wanted], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]


def gather(groups: list[tuple[str, ...]], folder: Path, python_version: str, limit: int) -> dict[str, str]:
    """Fill the folder, each group whole or not at all, up to `limit` bytes; why those left out are."""
    left_out: dict[str, str] = {}
    for group in groups:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            why = None
            for wanted in group:
                why = fetch(wanted, Path(scratch), python_version)
                taken, more = size(folder), size(Path(scratch))
                if why is None and taken + more > limit:
                    why = f"{mib(more)} and more, of which {mib(limit - taken)} are free"
                if why is not None:
                    left_out[re.split("[<>=]", group[0])[0]] = why
                    break
            for wheel in [] if why else Path(scratch).glob("*.whl"):
                shutil.move(wheel, folder / wheel.name)
    return left_out


def size(folder: Path) -> int:
    return sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))


def mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-wheels"))
    parser.add_argument("--python-version", default="3.12", help="of the machine with the GPU")
    parser.add_argument("--also", nargs="*", default=[], help="packages that it lacks beside the usual")
    parser.add_argument("--limit-mib", type=float, default=60)
    given = parser.parse_args()
    lock = (ROOT / "requirements.lock").read_text()
    names = [package.name for package in PACKAGES if not package.usual] + given.also
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("*.whl"):  # of another time: two versions of a package stop pip
        old.unlink()
    groups = [(pinned(name, lock),) for name in names]
    left_out = gather([*groups, FAISS], given.out, given.python_version, int(given.limit_mib * 2**20))
    (given.out / MISSING).write_text(json.dumps(left_out, indent=2) + "\n")
    count = len(list(given.out.glob("*.whl")))
    told = "; ".join(f"{name} ({why})" for name, why in left_out.items())
    print(f"{count} wheels, {mib(size(given.out))}, in {given.out}" + (f"; without {told}" if told else ""))
    return int(bool(set(left_out) - {"faiss-gpu"}))


if __name__ == "__main__":
    sys.exit(main())
