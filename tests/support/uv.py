"""Environments of their own for code of others, made by uv."""

import subprocess
import sys
from pathlib import Path

CLIP_BENCHMARK = ("clip-benchmark==1.6.2", "numpy<2.3", "requests")


def environment(home: Path, packages: tuple[str, ...]) -> str:
    """A new environment at `home` with these packages; returns its interpreter."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = str(home / "bin/python")
    subprocess.run(["uv", "venv", "--quiet", "--python", version, str(home)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *packages], check=True)
    return python
