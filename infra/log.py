"""What a run says: lines on stderr for people, JSON lines for machines, and a last line on stdout: where the result is.

`ANTIDOTE_LOG=events.jsonl` appends every message as JSON: {"time", "level", "event", ...fields}.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def say(event: str, level: str = "info", **fields: Any) -> None:
    """One message: `event` is the sentence for people, `fields` the figures in it for machines."""
    print(event if level == "info" else f"{level}: {event}", file=sys.stderr, flush=True)
    if path := os.environ.get("ANTIDOTE_LOG"):
        line = json.dumps({"time": round(time.time(), 3), "level": level, "event": event, **fields}, default=str)
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def warn(event: str, **fields: Any) -> None:
    say(event, level="warning", **fields)


def result(event: str) -> None:
    """The last line of an entry: on stdout, so that it can be read by a script."""
    print(event, flush=True)


class Progress:
    """A bar on a terminal; elsewhere a plain line every `seconds`, so that a log file stays readable."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0, seconds: float = 10.0) -> None:
        from tqdm import tqdm

        self.what, self.total, self.unit, self.count, self.seconds = what, total, unit, done, seconds
        self.first, self.start = done, time.monotonic()
        self.said = self.start
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=what, unit=f" {unit}", dynamic_ncols=True)

    def add(self, count: int, note: str = "") -> None:
        self.count += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.said >= self.seconds:
            self.said = time.monotonic()
            rate = (self.count - self.first) / (self.said - self.start)
            left = (self.total - self.count) / rate if rate else float("inf")
            print(
                f"{self.what}: {self.count:,} of {self.total:,} {self.unit}, {rate:,.0f}/s, {left:,.0f} s left {note}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    bar = Progress(what, total, unit, done)
    try:
        yield bar
    finally:
        bar.close()
