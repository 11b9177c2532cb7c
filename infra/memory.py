"""Memory in pages of 2 MiB instead of 4 KiB, for what a CPU trains and encodes.

A step takes and gives back hundreds of MB, and each time every page of it is faulted in anew and looked up by itself.
glibc (2.35 and later) asks the kernel for large pages if it is told to before the process begins. No number changes by
it; `tests/bench/pages.py` says what it brings.
"""

import os
import sys
from pathlib import Path

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLES, LARGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def large_pages() -> None:
    """Begin this program once more, as the same process, with large pages; for the first line of an entry.

    Nothing happens where nothing would come of it (another system, a kernel that gives large pages to all or to none)
    or where the user has set `glibc.malloc.hugetlb` already, to 0 for instance. What is begun from here inherits it.
    """
    known = os.environ.get(TUNABLES, "")
    if LARGE in known or not asked_for(ENABLED):
        return
    tunables = ":".join(filter(None, (known, f"{LARGE}=1")))
    # By the path of this interpreter: found by its name alone, it could be another's, without this environment.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {TUNABLES: tunables})


def asked_for(enabled: Path) -> bool:
    """Whether this kernel gives large pages to those who ask, and only to them."""
    return enabled.exists() and "[madvise]" in enabled.read_text()
