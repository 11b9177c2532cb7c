"""Tars that nobody packs by mistake: a table of named cases, and what every reader of ours makes of each.

    python -m tests.support.hostile_tars

opens each as a folder of foreign shards, verifies it, fills a node's cache with it, reads every pair as training does,
poisons it, and prints how that ended.
"""

import gzip
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import hostile_pictures as h

ROOT = Path(__file__).parents[2]

BLOCK, END = 512, bytes(1024)
REG, HARD, SYM, CHAR, _, DIR, FIFO, CONT = "01234567"


@dataclass(frozen=True)
class Case:
    """One tar. refused: a pattern of the one message; None: accepted with these keys (captions: "caption of KEY").

    With both, keys and outcomes are those of the dataset that `verify --leave-out --max-bad-share 1` makes of it; a tar
    that is refused without keys is refused there for the same reason.

    make: its bytes, or what writes the file. alike: webdataset reads the very same keys and captions.
    """

    name: str
    make: Callable[[], bytes] | Callable[[Path], None]
    refused: str | None = None
    keys: tuple[str, ...] = ()
    outcomes: tuple[tuple[str, int], ...] = ()
    alike: bool = True
    writes: bool = False


def header(
    name: bytes | str, size: int, kind: str = REG, *, link: bytes = b"", magic: bytes = b"ustar\x0000", **raw: bytes
) -> bytes:
    """512 bytes. raw: fields put there as they are (digits of the size, prefix, checksum)."""
    name = name.encode() if isinstance(name, str) else name
    fields: list[tuple[int, int, bytes]] = [
        (0, 100, name),
        (100, 8, b"0000644\0"),
        (108, 8, b"0000000\0"),
        (116, 8, b"0000000\0"),
        (124, 12, raw.get("digits", b"%011o\0" % (size % 8**11))),
        (136, 12, b"00000000000\0"),
        (148, 8, b" " * 8),
        (156, 1, kind.encode()),
        (157, 100, link),
        (257, 8, magic),
        (345, 155, raw.get("prefix", b"")),
    ]
    block = bytearray(BLOCK)
    for at, length, value in fields:
        block[at : at + len(value[:length])] = value[:length]
    block[148:156] = raw.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes | str, data: bytes = b"", kind: str = REG, **more: Any) -> bytes:
    return header(name, len(data), kind, **more) + padded(data)


def record(name: str, value: bytes) -> bytes:
    body = b" " + name.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(*records: tuple[str, bytes], kind: str = "x", data: bytes | None = None) -> bytes:
    return member("PaxHeaders/0", b"".join(record(*one) for one in records) if data is None else data, kind)


def long_name(name: bytes) -> bytes:
    return member("././@LongLink", name + b"\0", "L")


def pair(key: str = "a", caption: bytes | None = None, image: bytes | None = None, extension: str = "jpg") -> bytes:
    text = f"caption of {key}".encode() if caption is None else caption
    return member(f"{key}.{extension}", h.jpeg() if image is None else image) + member(f"{key}.txt", text)


def three() -> bytes:
    return pair("a") + pair("b") + pair("c")


ABC = ("a", "b", "c")


def names() -> Iterator[Case]:
    """What a member may be called."""
    out = "a name that leads out of its folder"
    for name, called in {
        "path upwards": "../a",
        "path upwards within": "x/../../a",
        "absolute path": "/etc/a",
        "windows drive": "C:a",
    }.items():
        yield Case(name, lambda c=called: pair(c) + END, out)
    bad = "a control character or a backslash"
    for name, called in {"backslashes": "..\\..\\a", "new line": "a\nb", "escape": "\x1b[2Ja"}.items():
        yield Case(name, lambda c=called: pair(c) + END, bad)
    yield Case("NUL in a long name", lambda: long_name(b"a\0/../b.jpg") + pair() + END, bad)
    yield Case(
        "NUL in a name",
        lambda: member(b"a.jpg\0/../../x", h.jpeg()) + member("a.txt", b"caption of a") + END,
        keys=("a",),
    )
    yield Case("NUL in a pax name", lambda: pax(("path", b"a\0b.jpg")) + pair() + END, bad)
    yield Case("upwards in a pax name", lambda: pax(("path", b"../../a.jpg")) + pair() + END, out)
    yield Case("upwards in a long name", lambda: long_name(b"../" * 50 + b"a.jpg") + pair() + END, out)
    yield Case("upwards in a prefix", lambda: member("a.jpg", h.jpeg(), prefix=b"../..") + END, out)
    yield Case("upwards in a folder's name", lambda: member("../x/", kind=DIR) + three() + END, out)
    yield Case("empty name", lambda: member("", b"x") + END, "a name that is empty|belongs to no sample")
    yield Case("dot name", lambda: member(".jpg", h.jpeg()) + END, "it holds no image-caption pairs")
    yield Case("dot name upwards", lambda: member("../._a.jpg", b"x") + three() + END, out)
    stray = (("stray_file", 1), ("success", 3))
    yield Case("no extension", lambda: three() + member("README", b"x") + END, keys=ABC, outcomes=stray)
    yield Case("no extension alone", lambda: member("README", b"x") + END, "'README', which belongs to no sample")
    yield Case("name of a mac", lambda: member("._a.jpg", b"x") + three() + END, keys=ABC)
    yield Case("folder of a mac", lambda: three() + member("__MACOSX/._d.jpg", b"x") + END, keys=ABC, alike=False)
    yield Case("hidden file", lambda: three() + member("x/.DS_Store") + END, keys=ABC, alike=False)
    yield Case("hidden folder", lambda: three() + member(".cache/d.txt") + END, keys=ABC, alike=False)
    yield Case("name not UTF-8", lambda: member(b"caf\xe9.jpg", h.jpeg()) + END, "a name that is not UTF-8")
    yield Case("pax name not UTF-8", lambda: pax(("path", b"caf\xe9.jpg")) + pair() + END, "a name that is not UTF-8")
    yield Case("long name not UTF-8", lambda: long_name(b"caf\xe9.jpg") + pair() + END, "a name that is not UTF-8")
    yield Case("owner not UTF-8", owner_not_utf8, keys=("a",))
    long = "x" * 90 + "/" + "y" * 90
    packed = lambda: long_name(f"{long}.jpg".encode()) + member("z", h.jpeg()) + pax(("path", f"{long}.txt".encode()))  # noqa: E731
    yield Case("long names", lambda: packed() + member("z", f"caption of {long}".encode()) + END, keys=(long,))
    yield Case("name of 5000 letters", lambda: long_name(b"x" * 5000 + b".jpg") + pair() + END, "over 4,096 characters")
    yield Case("names that differ by case", lambda: pair("a") + pair("A") + END, keys=("a", "A"))
    yield Case(
        "extensions in capitals",
        lambda: member("a.JPG", h.jpeg()) + member("a.TXT", b"caption of a") + END,
        keys=("a",),
    )
    yield Case("two extensions that differ by case", lambda: pair("a") + member("a.JPG", h.jpeg()) + END, "twice")
    yield Case("dots in a folder's name", lambda: pair("v1.0/a") + END, keys=("v1.0/a",))
    yield Case(
        "dots in a file's name",
        lambda: member("a.0.jpg", h.jpeg()) + member("a.0.txt", b"x") + END,
        r"'a\.0\.jpg' has a dot inside its key",
    )
    dotted = lambda key: member(f"{key}.jpg", h.jpeg()) + member(f"{key}.txt", b"x")  # noqa: E731
    yield Case("a dot in one key of four", lambda: three() + dotted("d.0") + END, r"'d\.0\.jpg' has a dot inside")
    yield Case("dots beside a key without", lambda: pair() + dotted("a.1") + END, r"'a\.1\.jpg' has a dot inside")
    many = lambda: b"".join(dotted(f"2024.{number:05d}") for number in range(3000)) + END  # noqa: E731
    yield Case("dots in 3000 keys", many, r"'2024\.00000\.jpg' has a dot inside")
    yield Case(
        "letters of all the world", lambda: pair("\u732b/\u0444\U0001f600") + END, keys=("\u732b/\u0444\U0001f600",)
    )
    yield Case("leading dot and slash", lambda: member("./", kind=DIR) + pair("./a") + END, keys=("./a",))
    yield Case("notes of webdataset", lambda: member("__meta__/x.json", b"{}") + three() + END, keys=ABC)


def owner_not_utf8() -> bytes:
    data = bytearray(member("a.jpg", h.jpeg()))
    data[265:268] = b"\xe9\xe9\xe9"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    return bytes(data) + member("a.txt", b"caption of a") + END


def kinds() -> Iterator[Case]:
    """What a member may be."""
    other = "a link or a device"
    for name, kind in {
        "symlink": SYM,
        "hardlink": HARD,
        "character device": CHAR,
        "fifo": FIFO,
        "contiguous file": CONT,
        "sparse file of GNU": "S",
        "long link": "K",
        "solaris extended header": "X",
        "kind that nobody knows": "Z",
    }.items():
        yield Case(name, lambda k=kind: three() + member("d.jpg", kind=k, link=b"/etc/passwd") + END, other)
    yield Case(
        "symlink, then a file through it", lambda: member("d", kind=SYM, link=b"/tmp") + pair("d/x") + END, other
    )
    yield Case("folder named as a sample", lambda: member("d.jpg/", kind=DIR) + three() + END, keys=ABC)
    yield Case("folder with data", lambda: member("d/", pair("x"), kind=DIR) + three() + END, "with .* bytes of data")
    stray = (("stray_file", 1), ("success", 3))
    yield Case("file named as a folder", lambda: member("d/", b"x") + three() + END, keys=ABC, outcomes=stray)
    yield Case(
        "folder with a long name",
        lambda: pax(("path", b"long/folder/")) + member("d/", kind=DIR) + three() + END,
        keys=ABC,
    )
    sparse = (("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1000000000000"))
    yield Case(
        "sparse file of pax", lambda: pax(*sparse) + pair() + END, "sets 'GNU.sparse.major' in an extended header"
    )


def sizes() -> Iterator[Case]:
    """How long a member may be."""
    cut = "is cut off inside 'a.jpg'"
    yield Case("size beyond the file", lambda: header("a.jpg", 8**11 - 1) + bytes(4096) + END, cut)
    yield Case(
        "size of 9 exabytes", lambda: header("a.jpg", 0, digits=b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7) + END, cut
    )
    yield Case("size negative", lambda: header("a.jpg", 0, digits=b"\xff" * 12) + END, cut)
    yield Case(
        "size of no digits", lambda: header("a.jpg", 0, digits=b"12x45\0\0\0\0\0\0\0") + END, "damaged header at byte 0"
    )
    yield Case(
        "size in another base",
        lambda: member("a.jpg", h.jpeg(), digits=base256(len(h.jpeg()))) + member("a.txt", b"caption of a") + END,
        keys=("a",),
    )
    yield Case(
        "pax size of 1e18", lambda: pax(("size", b"1" + b"0" * 18)) + pair() + END, "sets 'size' in an extended header"
    )
    yield Case(
        "pax size for all", lambda: pax(("size", b"512"), kind="g") + three() + END, "sets 'size' in an extended header"
    )
    yield Case("pax path for all", lambda: pax(("path", b"x.jpg"), kind="g") + three() + END, "sets 'path'")
    yield Case("pax comment for all", lambda: pax(("comment", b"made by git"), kind="g") + three() + END, keys=ABC)
    yield Case("pax times", lambda: pax(("mtime", b"1.5"), ("atime", b"nan")) + three() + END, keys=ABC)
    broken = "damaged extended header"
    for name, data in {
        "length 0": b"0 path=x\n",
        "length huge": b"99999999999999999999 path=x\n",
        "no length": b"path=x\n",
        "no end of line": b"9 path=xy",
        "no equals sign": b"8 pathx\n",
        "zeros": bytes(100),
    }.items():
        yield Case(f"pax record with {name}", lambda d=data: pax(data=d) + pair() + END, broken)
    yield Case("long name of a gigabyte", write_long_name, "extended header of 1,073,741,824 bytes", writes=True)
    yield Case(
        "wrong checksum",
        lambda: three()[: BLOCK * 3] + header("x.jpg", 0, checksum=b"000001\0 ") + END,
        "damaged header",
    )
    yield Case(
        "checksum of no digits", lambda: header("x.jpg", 0, checksum=b"what?\0\0\0") + END, "damaged header at byte 0"
    )
    yield Case("huge file of zeros", write_zeros, "goes on behind its end", writes=True)
    yield Case("huge sparse image", write_huge_picture, "the image of 'a' has 4,294,967,296 bytes", writes=True)


def base256(number: int) -> bytes:
    return b"\x80" + number.to_bytes(11, "big")


def write_long_name(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(header("././@LongLink", 1 << 30, "L"))
        file.seek(1 << 30, os.SEEK_CUR)  # a hole: no gigabyte is written
        file.write(pair() + END)


def write_zeros(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(three())
        file.truncate(1 << 36)


def write_huge_picture(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(header("a.jpg", 0, digits=base256(1 << 32)))
        file.seek(1 << 32, os.SEEK_CUR)
        file.write(member("a.txt", b"x") + END)


def samples() -> Iterator[Case]:
    """What a sample may hold."""
    for name, data in {
        "not JSON": b"{'a': 1}",
        "JSON cut off": b'{"a": ',
        "JSON not UTF-8": b'{"a": "\xe9"}',
        "JSON empty": b"",
    }.items():
        yield Case(name, lambda d=data: pair() + member("a.json", d) + END, r"the \.json of 'a' cannot be read")
    for name, more in {
        "bad_json": member("d.jpg", h.jpeg()) + member("d.txt", b"x") + member("d.json", b"[1]"),
        "not_utf8": pair("d", caption=b"caf\xe9"),
        "several_images": pair("d") + member("d.png", h.small_png()),
        "no_image": member("d.txt", b"x"),
        "no_caption": member("d.jpg", h.jpeg()) + member("d.json", b'{"caption": null}'),
        "too_large": pair("d", caption=b"x" * 5_000_000),
    }.items():
        counts = ((name, 1), ("success", 3))
        made = lambda more=more: three() + more + END  # noqa: E731
        yield Case(f"one {name} of four", made, rf"1 of 4 samples .*\(1 {name}\).*'d'", keys=ABC, outcomes=counts)
    said = b'{"caption": "caption of a"}'
    yield Case(
        "caption in the JSON",
        lambda: member("a.jpg", h.jpeg()) + member("a.json", said) + END,
        keys=("a",),
        alike=False,
    )
    yield Case("caption in both", lambda: pair() + member("a.json", b'{"caption": "another"}') + END, keys=("a",))
    yield Case("JSON of a list", lambda: pair() + member("a.json", b"[1]") + END, "no JSON object but of type list")
    yield Case("JSON of null", lambda: pair() + member("a.json", b"null") + END, "no JSON object but of type NoneType")
    deep = lambda depth: pair() + member("a.json", b'{"a": ' + b"[" * depth + b"]" * depth + b"}") + END  # noqa: E731
    yield Case("JSON nested 100000 deep", lambda: deep(100_000), r"\.json of 'a' cannot be read")
    yield Case("JSON nested 900 deep", lambda: deep(900), "nested over 50 deep|cannot be read")
    yield Case(
        "JSON of 100 MB",
        lambda: pair() + member("a.json", b'"' + b"x" * 100_000_000 + b'"') + END,
        "the json of 'a' has 100,000,002 bytes",
    )
    yield Case(
        "JSON with half a letter", lambda: pair() + member("a.json", b'{"url": "\\ud800"}') + END, "holds half a letter"
    )
    yield Case(
        "JSON with a number of 9000 digits",
        lambda: pair() + member("a.json", b'{"a": ' + b"9" * 9000 + b"}") + END,
        "cannot be read",
    )
    odd = {"width": 10**30, "height": "tall", "url": ["x"], "sha256": 7, "row": "../x", "key": "../../y", "caption": 1}
    yield Case("JSON with odd types", lambda: pair() + member("a.json", json.dumps(odd).encode()) + END, keys=("a",))
    yield Case("caption not UTF-8", lambda: pair(caption=b"caf\xe9") + END, "the caption of 'a' is not UTF-8")
    yield Case(
        "caption of 100 MB", lambda: pair(caption=b"x" * 100_000_000) + END, "the text of 'a' has 100,000,000 bytes"
    )
    yield Case("caption empty", lambda: pair(caption=b"") + END, keys=("a",))
    yield Case("caption with NULs and new lines", lambda: pair(caption=b"a\0b\nc\r\n\x1b[2J") + END, keys=("a",))
    yield Case("one key twice", lambda: three() + pair("a") + END, r"'a\.jpg' twice")
    yield Case(
        "two images of one key",
        lambda: pair() + member("a.png", h.small_png()) + END,
        r"several images \(jpg, png\)",
    )
    yield Case(
        "caption without an image",
        lambda: three() + member("d.txt", b"x") + END,
        r"'d' is not an image with a \.txt",
        keys=ABC,
        outcomes=(("no_image", 1), ("success", 3)),
    )
    yield Case(
        "image without a caption",
        lambda: three() + member("d.jpg", h.jpeg()) + END,
        r"'d' is not an image with a \.txt",
        keys=ABC,
        outcomes=(("no_caption", 1), ("success", 3)),
    )
    yield Case("images alone", lambda: member("a.jpg", h.jpeg()) + END, "not an image with a .txt")
    yield Case(
        "more files of a sample", lambda: pair() + member("a.cls", b"1") + member("a.seg.png", b"x") + END, keys=("a",)
    )
    yield Case("caption first", lambda: member("a.txt", b"caption of a") + member("a.jpg", h.jpeg()) + END, keys=("a",))
    pictures = b"".join(member(f"{key}.jpg", h.jpeg()) for key in "ab")
    texts = b"".join(member(f"{key}.txt", f"caption of {key}".encode()) for key in "ab")
    yield Case("samples in each other", lambda: pictures + texts + END, keys=("a", "b"), alike=False)
    unused = lambda image: pair("a") + pair("b", image=image) + pair("c") + END  # noqa: E731
    kept, lost = ("success", 2), "not_an_image"
    some: list[tuple[str, str, Callable[[], bytes]]] = [
        ("an empty image", lost, lambda: b""),
        ("gif named jpg", lost, lambda: h.animated_gif(3)),
        ("a bomb of 50000", "too_many_pixels", lambda: h.zeros_png(h.SIDE, 1, 0)),
        ("a jpeg that claims 65535", "too_many_pixels", lambda: h.resized_header(h.jpeg(), 65535, 65535)),
        ("a progressive bomb", "too_many_pixels", lambda: h.progressive_jpeg(8000, 2000)),
    ]
    for name, outcome, image in some:
        counts = ((outcome, 1), kept)
        made = lambda i=image: unused(i())  # noqa: E731
        yield Case(f"{name} inside", made, rf"1 of 3 samples .*\(1 {outcome}\).*'b'", ("a", "c"), counts)
    alone = r"1 of 1 samples cannot be used \(1 not_an_image\).*Nothing is left"
    yield Case("no image that can be read", lambda: pair(image=b"x") + END, alone)
    yield Case("an image cut in its pixels", lambda: unused(h.jpeg()[:-40]), keys=ABC)  # found when it is decoded
    yield Case("png named jpg", lambda: unused(h.small_png()), keys=ABC)


def endings() -> Iterator[Case]:
    """Where a file may end."""
    whole, cut = three() + END, "is cut off"
    first = BLOCK + len(padded(h.jpeg()))
    for name, place in {
        "inside the first header": 100,
        "inside data": BLOCK + 300,
        "inside padding": BLOCK + len(h.jpeg()) + 3,
        "inside the second header": first + 200,
        "before the end": len(three()),
        "inside the end": len(three()) + 100,
    }.items():
        yield Case(f"cut {name}", lambda p=place: whole[:p], cut)
    yield Case("one block of an end", lambda: three() + bytes(BLOCK), keys=ABC)
    yield Case("end filled up to 1 MB", lambda: three() + bytes(1 << 20), keys=ABC)
    yield Case("garbage behind the end", lambda: whole + b"garbage", "goes on behind its end-of-archive marker")
    yield Case("two tars in one", lambda: pair("a") + END + pair("b") + END, "goes on behind its end-of-archive marker")
    yield Case("a block of zeros inside", lambda: pair("a") + bytes(BLOCK) + pair("b") + END, "goes on behind its end")
    yield Case(
        "extended header at the end", lambda: three() + pax(("path", b"x.jpg")) + END, "ends after an extended header"
    )
    yield Case("gzip", lambda: gzip.compress(whole), "is a gzip file, not a tar")
    yield Case("zip", lambda: b"PK\x03\x04" + bytes(1000), "is a zip file, not a tar")
    yield Case("nothing", lambda: b"", "is empty")
    yield Case("zeros alone", lambda: bytes(10240), "no image-caption pairs")
    yield Case("html", lambda: b"<!doctype html>" + h.PAYLOAD * 100, "damaged header at byte 0")
    yield Case("random bytes", lambda: bytes(range(256)) * 40, "damaged header at byte 0")
    yield Case("tar of 1979", lambda: old_tar(), keys=("a",))
    yield Case("a folder", lambda p: p.mkdir(), "is not a plain file", writes=True)
    yield Case("a pipe", lambda p: os.mkfifo(p), "is not a plain file", writes=True)
    yield Case("a device", lambda p: p.symlink_to("/dev/zero"), "is not a plain file", writes=True)


def old_tar() -> bytes:
    parts = (("a.jpg", h.jpeg()), ("a.txt", b"caption of a"))
    return b"".join(member(name, data, "\0", magic=bytes(8)) for name, data in parts) + END


def cases() -> list[Case]:
    return [*names(), *kinds(), *sizes(), *samples(), *endings()]


# Every reader of ours on one tar


def place(root: Path, case: Case, number: int) -> Path:
    """The folder that holds the case as 00000.tar."""
    folder = root / "tars" / f"{number:03d}"
    folder.mkdir(parents=True)
    if case.writes:
        case.make(folder / "00000.tar")
    else:
        (folder / "00000.tar").write_bytes(case.make())
    return folder


def read_all(folder: Path, scratch: Path) -> dict[str, Any]:
    """What opening, verifying, caching, reading and poisoning said."""
    from pipeline.dataset import Dataset
    from pipeline.verification import Verification
    from poison.attacks.badnet import BadNet
    from poison.writing.injection import Injection
    from train.cache import filled
    from train.stream import Pairs

    refusals = (ValueError, RuntimeError)
    found: dict[str, Any] = {"refused": None}
    try:
        made = Dataset.open(str(folder))
    except refusals as error:
        found |= {"refused": str(error), "kind": type(error).__name__}
        try:
            left = scratch / "left"
            Verification(dataset=str(folder), backend="local", max_bad_share=1, leave_out=str(left)).run()
        except refusals as again:
            return found | {"refused again": str(again)}
        folder, made = left, Dataset.open(str(left))
    found["outcomes"] = made.outcomes
    index = made.index_of_samples(["key", "caption"])
    found["pairs"] = list(zip(index["key"].to_pylist(), index["caption"].to_pylist(), strict=True))
    for decode in (False, True):
        try:
            Verification(dataset=str(folder), backend="local", decode=decode).run()
        except refusals as error:
            found["verify" if not decode else "decode"] = str(error)
    with filled(made, 1.0, quiet=True) as local:
        pairs = Pairs(local, None, None, size=32, augment="none", seed=0)  # type: ignore[arg-type]
        found["captions"], found["unreadable"] = [], []
        for sample in range(len(pairs)):
            try:
                found["captions"].append(pairs.pair(sample).caption)
            except refusals as error:
                found["unreadable"].append(str(error))
    attack, out = BadNet(target="b", size=2), scratch / "poisoned"
    try:
        words = {"dataset": str(folder), "out": str(out), "ledger": str(scratch / "ledger"), "backend": "local"}
        Injection(attack=attack, budget=1, **words).run()
        found["poisoned"] = len(Dataset.open(str(out)).index_of_samples(["key"]))
    except refusals as error:
        found["not poisoned"] = str(error)
    return found


def memory(what: str) -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def run_all(root: Path) -> Iterator[dict[str, Any]]:
    """One line of findings a case, in this process."""
    import shutil

    for module in ("poison.attacks.badnet", "poison.writing.injection", "train.stream"):
        importlib.import_module(module)  # before anything is measured
    os.fsync = lambda _: None  # no case cuts the power

    for number, case in enumerate(cases()):
        folder, scratch = place(root, case, number), root / "scratch"
        scratch.mkdir()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak is measured from here on
        before, start = memory("VmRSS"), time.monotonic()
        found = read_all(folder, scratch)
        found |= {"case": case.name, "seconds": time.monotonic() - start}
        found["peak_mib"] = memory("VmHWM") - before
        shutil.rmtree(scratch)
        if found["refused"] is not None or not case.alike:
            shutil.rmtree(folder)
        yield found


def read_in_a_process(root: Path) -> list[dict[str, Any]]:
    """The findings on every case, read by one process of its own, and last what it wrote where."""
    places = {name: root / name for name in ("home", "tmp", "cwd", "cache")}
    for folder in places.values():
        folder.mkdir(parents=True)
    more = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "ANTIDOTE_CACHE": str(places["cache"]),
    }
    more["TORCHINDUCTOR_CACHE_DIR"] = str(root / "torch")  # torch makes a folder when it is imported
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile_tars", "--in", str(root)],
        cwd=places["cwd"],
        env=os.environ | more | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-5000:]}"
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    appeared = [str(path) for name in ("home", "tmp", "cwd") for path in places[name].rglob("*")]
    return [*found, {"appeared": appeared}]


def by_webdataset(path: Path) -> list[tuple[str, str]]:
    """(key, caption) as webdataset reads them."""
    import webdataset

    read = webdataset.WebDataset(str(path), shardshuffle=False, handler=webdataset.reraise_exception)
    return [(sample["__key__"], sample["txt"].decode()) for sample in read]


def verdict(case: Case, found: dict[str, Any], root: Path | None = None) -> str | None:
    """What is wrong with how a case ended; None if nothing is."""
    said = found["refused"]
    if case.refused is not None:
        if said is None:
            return "it was accepted"
        for words in (said, found.get("refused again", said)):
            if not re.search(case.refused, words) or "\n" in words:
                return f"it was refused for another reason: {words}"
        if "refused again" in found or not case.keys:
            return None if "refused again" in found and not case.keys else "--leave-out made the wrong end of it"
    elif said is not None:
        return f"it was refused: {said}"
    if tuple(key for key, _ in found["pairs"]) != case.keys:
        return f"its keys are {[key for key, _ in found['pairs']]}"
    wanted = dict(case.outcomes) or {"success": len(case.keys)}
    if found["outcomes"] != wanted:
        return f"its outcomes are {found['outcomes']}"
    if found.get("verify"):
        return f"verify said {found['verify']}"
    if len(found["captions"]) + len(found["unreadable"]) != len(case.keys) or ("poisoned" in found) == (
        "not poisoned" in found
    ):
        return "a pair was lost on the way to training or to poison"
    return None


def shown(found: list[dict[str, Any]]) -> str:
    lines = [f"{'case':40} {'seconds':>8} {'MiB':>6}  outcome"]
    for case, one in zip(cases(), found, strict=False):
        outcome = f"refused: {one['refused']}" if one["refused"] else f"accepted: {one['outcomes']}"
        wrong = verdict(case, one)
        ended = f"WRONG, {wrong}" if wrong else outcome
        lines.append(f"{case.name:40} {one['seconds']:8.2f} {one['peak_mib']:6.0f}  {ended.replace(chr(27), '')[:150]}")
    refused = sum(one.get("refused") is not None for one in found)
    lines.append(f"{len(cases())} cases: {refused} refused, {len(cases()) - refused} accepted")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:2] == ["--in"]:
        for found in run_all(Path(sys.argv[2])):
            print(json.dumps(found), flush=True)
        return 0
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        found = read_in_a_process(Path(scratch))
        print(shown(found))
    return int(any(verdict(case, one) for case, one in zip(cases(), found, strict=False)))


if __name__ == "__main__":
    sys.exit(main())
