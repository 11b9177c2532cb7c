"""Memory in pages of 2 MiB instead of 4 KiB, and kept between steps, for what a CPU trains and encodes.

A step takes and gives back hundreds of MB, and each time every page of it is zeroed, faulted in and looked up anew.
glibc (2.35 and later) asks the kernel for large pages, and keeps what is freed, if it is told to before the process
begins. No number changes by it; `tests/bench/pages.py` says what it brings.
"""

import os
import sys
from pathlib import Path

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
VARIABLE, PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
# Kept is what is free at the end of the heap, up to 256 MiB; from 32 MiB on an allocation is one of its own and goes
# back at once. Of the two thresholds one alone would be worse than none: glibc then no longer adapts the other.
WANTED = {PAGES: 1, "glibc.malloc.trim_threshold": 256 << 20, "glibc.malloc.mmap_threshold": 32 << 20}


def large_pages() -> None:
    """Begin this program once more, as the same process, with large pages; for the first line of an entry.

    Nothing happens where nothing would come of it (another system, a kernel that gives large pages to all or to none)
    or where the user has set `glibc.malloc.hugetlb` already, to 0 for instance. What is begun from here inherits it.
    """
    known = os.environ.get(VARIABLE, "")
    if PAGES in known or not asked_for(ENABLED):
        return
    # By the path of this interpreter: found by its name alone, it could be another's, without this environment.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: tunables(known)})


def tunables(known: str = "") -> str:
    """GLIBC_TUNABLES with what is wanted after what is known, but for what that sets itself."""
    return ":".join(filter(None, (known, *(f"{name}={value}" for name, value in WANTED.items() if name not in known))))


def asked_for(enabled: Path) -> bool:
    """Whether this kernel gives large pages to those who ask, and only to them."""
    return enabled.exists() and "[madvise]" in enabled.read_text()


if __name__ == "__main__":
    print(tunables())
