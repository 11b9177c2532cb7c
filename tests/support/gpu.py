"""Where a test that is marked `gpu` runs: on a GPU, or skipped; on a CPU where the kit is tried there."""

import os

import pytest
import torch

INSTEAD = "ANTIDOTE_GPU_TESTS_ON"  # cpu: the same code there


def device(count: int = 1, why_not_cpu: str = "") -> torch.device:
    """The device. count: how many GPUs it takes. why_not_cpu: why the code cannot be tried on a CPU, if it cannot.
    Skips the test, with the reason, where there is none."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there >= count:
        return torch.device("cuda", 0)
    if there:
        pytest.skip(f"NOT TESTED: needs {count} GPUs, and this machine has {there}")
    if os.environ.get(INSTEAD) != "cpu":
        pytest.skip("NOT TESTED: torch sees no GPU here")
    if why_not_cpu:
        pytest.skip(f"NOT TESTED on a CPU: {why_not_cpu}")
    return torch.device("cpu")
