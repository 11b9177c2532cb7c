"""How a command ends: 0 and a last line, 1 where something is lost or damaged, 2 for bad input, 130 at Ctrl-C.

One line says which.

ValueError is the user's to mend: no other attempt will do better. The rest is below.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from infra import log


class Transient(Exception):
    """A failure that another attempt may not meet: a reset connection, a busy server, a full queue."""


class Lost(RuntimeError):
    """Something has no result after every retry. What is done is kept; the entry exits with status 1."""


class Damaged(Lost):
    """A file that is not what its manifest says, or not what its name says: short, changed, swapped or missing."""


def named(kind: str, message: str) -> Exception:
    """The error that another process told of, by the name of its class; what is none of ours is Lost."""
    return {"Damaged": Damaged, "ValueError": ValueError}.get(kind, Lost)(message)


def refuse(error: Exception | str) -> NoReturn:
    """One clear line on stderr, exit status 2: bad input."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def interrupted() -> int:
    """One line on stderr for Ctrl-C (SIGINT); returns the exit status that shells give it."""
    print("interrupted: what is done is kept; the same command again does the rest", file=sys.stderr, flush=True)
    return 130


def exit_on_loss(run: Callable[[], str]) -> int:
    """Run an entry's work: 0 and its last line, 1 on any loss, 2 on bad input, 130 at Ctrl-C."""
    try:
        log.result(run())
        return 0
    except ValueError as error:
        refuse(error)
    except (Lost, OSError) as error:  # a full disk, a server that is gone: what is done is kept
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted()
