"""`plain` may say no to any tar, but where it says yes `scan` must say the very same."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.errors import Damaged
from pipeline import tars

FILES = {"0.jpg": b"x" * 700, "0.txt": b"", "0.json": b"{}", "1.jpg": b"y" * 512, "1.txt": b"one", "1.json": b"{ }"}


def made(path: Path, mtime: float = 0, form: int = tarfile.PAX_FORMAT, folder: str = "") -> list[tuple[str, int, int]]:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(folder + name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return list(tars.scan(path))


def plain(path: Path, found: list[tuple[str, int, int]]) -> bool:
    names, offsets, sizes = zip(*found, strict=True)
    return tars.plain(path, np.array([name.encode() for name in names]), np.array(offsets), np.array(sizes))


def resummed(header: bytearray) -> None:
    """Make a changed header's checksum right again."""
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("mtime", [0, 1234567.5])
def test_tars_of_the_usual_writers_are_plain(tmp_path: Path, form: int, mtime: float):
    found = made(tmp_path / "a.tar", mtime, form, folder="deep/")
    assert plain(tmp_path / "a.tar", found)


def test_names_in_extended_headers_are_left_to_scan(tmp_path: Path):
    assert not plain(tmp_path / "a.tar", made(tmp_path / "a.tar", folder="x" * 120 + "/"))
    assert not plain(tmp_path / "a.tar", made(tmp_path / "a.tar", folder="\u00e9/"))


@pytest.mark.parametrize(("at", "said"), [(345, "p/0.txt"), (329, None)])  # a name's front part; a device's number
def test_fields_that_ours_leave_empty_are_left_to_scan(tmp_path: Path, at: int, said: str | None):
    path = tmp_path / "a.tar"
    found = made(path)
    data, start = bytearray(path.read_bytes()), found[1][1] - 512
    header = data[start : start + 512]
    header[at] = ord("p")
    resummed(header)
    data[start : start + 512] = header
    path.write_bytes(data)
    assert not plain(path, found)
    if said is None:
        with pytest.raises(Damaged):
            list(tars.scan(path))
    else:
        assert list(tars.scan(path))[1][0] == said


Found = list[tuple[str, int, int]]


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[:-1],
        lambda found: found[1:],
        lambda found: [found[1], found[0], *found[2:]],
        lambda found: [*found[:2], (found[2][0], found[2][1] + 512, found[2][2]), *found[3:]],
        lambda found: [*found[:2], (found[2][0], found[2][1] + 1, found[2][2]), *found[3:]],
        lambda found: [*found[:2], (found[2][0], found[2][1], found[2][2] + 1), *found[3:]],
        lambda found: [*found[:2], (found[2][0], found[2][1], -1), *found[3:]],
        lambda found: [*found[:2], ("0.jso", *found[2][1:]), *found[3:]],
        lambda found: [*found[:5], ("1.json", 1 << 40, 3)],
    ],
)
@pytest.mark.parametrize("mtime", [0, 1.5])
def test_a_list_that_is_not_the_tar_is_not_plain(tmp_path: Path, change: Callable[[Found], Found], mtime: float):
    found = made(tmp_path / "a.tar", mtime)
    assert plain(tmp_path / "a.tar", found)
    assert not plain(tmp_path / "a.tar", change(found))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-10_240],
        lambda data: data[:-1],
        lambda data: data[:-1] + b"x",
        lambda data: data + b"x" * 512,
        lambda data: data + bytes(tars.MAX_TAIL_BYTES),
    ],
)
def test_a_tar_that_ends_wrongly_is_not_plain(tmp_path: Path, change: Callable[[bytes], bytes]):
    path = tmp_path / "a.tar"
    found = made(path)
    path.write_bytes(change(path.read_bytes()))
    assert not plain(path, found)


@pytest.mark.parametrize("mtime", [0, 1234567.5])
@pytest.mark.parametrize("right_sum", [True, False])
def test_whatever_byte_of_a_header_changes_plain_never_says_more_than_scan(
    tmp_path: Path, mtime: float, right_sum: bool
):
    path = tmp_path / "a.tar"
    found = made(path, mtime)
    whole = path.read_bytes()
    begin, end = found[1][1], found[2][1]  # all headers of the third file; the second is empty
    draws = np.random.default_rng(0)
    fields = [place for place in range(begin, end) if (place - begin) % 512 < 345]
    kept = 0
    for place in draws.choice(fields, 300):
        data = bytearray(whole)
        data[place] = draws.choice([0, ord(" "), ord("0"), ord("7"), ord("x"), 0x80, data[place] ^ 1])
        for at in {begin, end - 512} if right_sum else ():  # an extended header is three blocks, the first a header
            header = data[at : at + 512]
            resummed(header)
            data[at : at + 512] = header
        path.write_bytes(data)
        try:
            said = plain(path, found)
        except Damaged:
            said = False
            with pytest.raises(Damaged):
                list(tars.scan(path))
        if said and data != whole:
            kept += 1
            assert list(tars.scan(path)) == found, place - begin
    assert kept > 10 or not right_sum  # times, owners and the like may be others
