"""A disk that is full: said once, with the place, and no further shard is tried."""

import errno
import os
from pathlib import Path

import pytest

from infra import storage
from infra.errors import Lost
from infra.spread import spread


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """As write(2) says it: without a name."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", refuse)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("way", ["write", "create", "upload"])
def test_the_file_that_did_not_fit_is_named_and_nothing_of_it_stays(tmp_path: Path, way: str):
    (tmp_path / "source").write_bytes(b"1")
    target = str(tmp_path / "folder" / "file")
    with pytest.raises(OSError, match="No space left on device") as raised:
        storage.upload(tmp_path / "source", target) if way == "upload" else getattr(storage, way)(target, b"1")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == target
    assert list((tmp_path / "folder").iterdir()) == []


def test_other_errors_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = OSError(errno.EIO, os.strerror(errno.EIO), "another name")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(broken))
    with pytest.raises(OSError, match="another name") as raised:
        storage.write(str(tmp_path / "file"), b"1")
    assert raised.value is broken


class Fills:
    """Work of which the third task finds no room. place: as an error with a name has it, or None."""

    def __init__(self, place: str | None) -> None:
        self.place = place
        self.tried: list[int] = []

    def __call__(self, task: int) -> int:
        self.tried.append(task)
        if task >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([self.place] if self.place else []))
        return task


@pytest.mark.parametrize(("place", "said"), [("/data/out/shard.tar", "/data/out/shard.tar"), (None, "TMPDIR")])
def test_no_other_task_is_tried(place: str | None, said: str, capsys: pytest.CaptureFixture[str]):
    work = Fills(place)
    with pytest.raises(Lost, match=r"sealing: 2: no space left on the disk of .*make room, and run") as raised:
        spread(work, range(100), backend="local", what="sealing", unit="pairs")
    assert said in str(raised.value)
    assert work.tried == [0, 1, 2]
    assert "failed" not in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster_it_is_the_same():
    with pytest.raises(Lost, match=r"no space left on the disk of /data/out. What is done"):
        spread(Fills("/data/out"), range(20), backend="ray", what="sealing", unit="pairs")
