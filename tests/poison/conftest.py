from collections.abc import Callable

import pytest

from infra import storage


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and waiting for the disk was nine tenths of their time."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object], int], bool]:
    """killer(run, k): run it, dead before its k-th change to storage (from 0). False: it ended before that."""

    def killed(run: Callable[[], object], at: int) -> bool:
        changes = 0

        def guarded(change: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object) -> object:
                nonlocal changes
                if changes >= at:
                    raise Killed
                changes += 1
                return change(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("write", "create", "upload", "remove"):
                patch.setattr(storage, name, guarded(getattr(storage, name)))
            try:
                run()
            except Killed:
                return True
        return False

    return killed
