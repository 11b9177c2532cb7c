import os
import subprocess
import sys

import pytest

from infra import memory

BEGUN = "import os; from infra import memory; print(os.getpid()); memory.large_pages(); "
TELL = BEGUN + "import sys; print(os.environ.get('GLIBC_TUNABLES'), sys.orig_argv[-1], sys.prefix)"
TOUCH = BEGUN + (
    "import resource; before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; "
    "taken = [b'x' * (1 << 24) for _ in range(8)]; "  # numpy asks by itself, torch does not
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
)
need_madvise = pytest.mark.skipif(not memory.asked_for(memory.ENABLED), reason="this kernel gives no pages on request")


def lines_of(code: str, argument: str = "an argument", **tunables: str) -> list[str]:
    rest = {key: value for key, value in os.environ.items() if key != memory.VARIABLE}
    run = subprocess.run(
        [sys.executable, "-c", code, argument], env=rest | tunables, capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()


@need_madvise
def test_a_program_begins_once_more_as_the_same_process_with_its_arguments():
    first, second, told = lines_of(TELL)
    assert first == second
    assert told == f"{memory.tunables()} an argument {sys.prefix}"
    assert told.startswith("glibc.malloc.hugetlb=1:")


@need_madvise
@pytest.mark.parametrize("entry", ["infra/cli.py", "train/pretrain.py", "train/finetune.py"])
def test_the_command_and_what_torchrun_starts_begin_so(entry):
    code = f"import atexit, os, runpy; atexit.register(lambda: print(os.environ.get('{memory.VARIABLE}'))); "
    code += f"runpy.run_path({entry!r}, run_name='__main__')"
    assert lines_of(code, argument="--help")[-1] == memory.tunables()


@need_madvise
def test_other_tunables_stay():
    *_, told = lines_of(TELL, GLIBC_TUNABLES="glibc.malloc.trim_threshold=65536")
    assert told.startswith("glibc.malloc.trim_threshold=65536:glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=")
    assert told.count("trim_threshold") == 1


def test_whoever_said_no_is_left_alone():
    _, told = lines_of(TELL, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert told.startswith("glibc.malloc.hugetlb=0 ")


@need_madvise
def test_memory_is_faulted_in_by_large_pages():
    large, small = (int(lines_of(TOUCH, **given)[-1]) for given in ({}, {memory.VARIABLE: f"{memory.PAGES}=0"}))
    assert large * 4 < small  # of 16 MiB, up to 2 lie before or behind the large ones


@pytest.mark.parametrize(
    ("said", "asked"), [("always [madvise] never\n", True), ("[always] madvise never\n", False), (None, False)]
)
def test_only_where_the_kernel_waits_to_be_asked(said, asked, tmp_path):
    if said is not None:
        (tmp_path / "enabled").write_text(said)
    assert memory.asked_for(tmp_path / "enabled") is asked
