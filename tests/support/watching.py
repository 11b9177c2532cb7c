"""Nobody opens a ledger: what this process opens is seen by an audit hook, and by fsspec's own door."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import fsspec
import pytest


@dataclass
class Watch:
    """forbidden: what no opened path may have in it. opened: every path that was."""

    forbidden: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def see(self, path: str) -> None:
        self.opened.append(path)
        if any(place in path for place in self.forbidden):
            raise AssertionError(f"the ledger was opened: {path}")


_watches: list[Watch] = []


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and _watches and isinstance(args[0], (str, bytes)):
        path = args[0].decode() if isinstance(args[0], bytes) else args[0]
        for watch in _watches:
            if watch.forbidden:
                watch.see(path)


@contextmanager
def watching() -> Iterator[Watch]:
    """Forbids to open what has one of the `forbidden` names in its path, on disk and through fsspec."""
    sys.addaudithook(_audit)  # for good; it does nothing while nobody watches
    to_filesystem = fsspec.core.url_to_fs
    watch = Watch()

    def seen(url: str, **keywords: object) -> object:
        watch.see(url)
        return to_filesystem(url, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsspec.core, "url_to_fs", seen)
        _watches.append(watch)
        try:
            yield watch
        finally:
            _watches.remove(watch)
