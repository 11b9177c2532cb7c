"""Labelled WebDataset test sets in the layout of CLIP_benchmark, local or S3.

classnames.txt                            one class a line, a blank one too; a label is the number of its line, from 0
zeroshot_classification_templates.txt     one prompt a line, `{c}` where the class name goes
test/0.tar, test/1.tar, ...               KEY.jpg|png|webp and KEY.cls (the label, as decimal text)
test/nshards.txt                          how many tars; written last, its presence means complete

A set with captions in place of classes (dataset_type.txt says so) is read by pipeline.captioned.
"""

import hashlib
import io
import itertools
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image

from infra import hidden, log, storage, text
from infra.errors import Damaged
from pipeline import foreign, images, shards, tars

CLASSES, TEMPLATES, COUNT = "classnames.txt", "zeroshot_classification_templates.txt", "nshards.txt"
TYPE, CAPTIONED = "dataset_type.txt", "retrieval"  # a set without this file is of labelled images
PER_TAR = 1000  # images; as many are held in memory while a tar is written

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """One image and where it lies: in which tar, under which key, from which byte, how many bytes.

    label: of its class; -1 where the set has captions in place of classes.
    """

    key: str
    label: int
    extension: str
    sha256: str
    tar: int
    offset: int
    bytes: int


class Images(Protocol):
    """The images of one split, whatever is said of them."""

    @property
    def url(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def pictures(self) -> tuple[Picture, ...]: ...


@dataclass(frozen=True)
class TestSet:
    """A complete test set, without its images: those are read by `stored`.

    digest: sha256 of classes, templates, labels and image hashes in order, whatever the tars are called.
    """

    url: str
    split: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    pictures: tuple[Picture, ...]
    digest: str


def is_complete(url: str, split: str = "test") -> bool:
    return storage.exists(storage.join(url, split, COUNT))


def write(
    url: str,
    samples: Iterable[tuple[bytes, str, int]],
    classes: Sequence[str],
    templates: Sequence[str],
    split: str = "test",
    called: Callable[[int], str] = "image {}".format,
) -> int:
    """Write (encoded image, extension, label) in the order given; returns how many. Same input, same bytes.

    Every image is decoded, and stored so that every reader sees the same (pipeline.images.storable). called: what to
    call an image in a message, by its number from 0.

    An interrupted call leaves no nshards.txt, and is simply repeated. Raises ValueError if this split is complete
    already, or another split here has other classes or templates, or a label, extension or template is wrong, or if
    images cannot be decoded: a test set is not made smaller than it was asked for.
    """
    lines = {CLASSES: _lines("class name", classes), TEMPLATES: _lines("template", templates)}
    if wrong := [template for template in templates if "{c}" not in template]:
        raise ValueError(f"the template {wrong[0]!r} has no {{c}} where the class name goes")
    labelled = (
        (image, extension, _label(label, number, len(classes), called))
        for number, (image, extension, label) in enumerate(samples)
    )
    return write_tars(url, split, labelled, "cls", lines, called)


def _label(label: int, number: int, num_classes: int, called: Callable[[int], str]) -> bytes:
    if not 0 <= label < num_classes:
        raise ValueError(f"{called(number)} has label {label}; allowed: 0 to {num_classes - 1}")
    return str(int(label)).encode()


def write_tars(
    url: str,
    split: str,
    samples: Iterable[tuple[bytes, str, bytes]],
    kind: str,
    beside: dict[str, bytes],
    called: Callable[[int], str],
) -> int:
    """Write (encoded image, extension, what is said of it) in the order given; returns how many.

    kind: the ending of what is said. beside: files at the root that all splits share. Raises ValueError as `write`.
    """
    if is_complete(url, split):
        raise ValueError(f"{url} already holds a complete split {split!r}; choose another folder")
    other_kinds = {CLASSES, TYPE} - set(beside)
    if mixed := sorted(other_kinds & set(storage.names(url))):
        raise ValueError(f"{url} holds a test set of another kind (it has {mixed[0]}); choose another folder")
    for name, data in beside.items():
        place = storage.join(url, name)
        if not storage.create(place, data) and storage.read(place) != data:
            raise ValueError(f"{place} exists and says something else; choose another folder")
    count, broken = 0, list[str]()
    with tempfile.TemporaryDirectory() as scratch:
        number, pending = 0, _storable(samples, called, broken)
        while batch := list(itertools.islice(pending, PER_TAR)):
            path = Path(scratch) / f"{number}.tar"
            _write_tar(path, batch, count, kind)
            storage.upload(path, storage.join(url, split, path.name))
            path.unlink()
            number, count = number + 1, count + len(batch)
    if broken:
        more = f"; nor can {len(broken) - 1:,} more" if len(broken) > 1 else ""
        raise ValueError(f"{broken[0]}{more}: repair or remove what is damaged, and run the same command again")
    if count == 0:
        raise ValueError(f"there is not one image to write to {url}")
    storage.write(storage.join(url, split, COUNT), f"{number}\n".encode())
    return count


def _storable(
    samples: Iterable[tuple[bytes, str, bytes]], called: Callable[[int], str], broken: list[str]
) -> Iterator[tuple[bytes, str, bytes]]:
    """The samples as they are stored, up to the first image that cannot be decoded; it and all others like it are
    told in `broken`."""
    for number, (image, extension, said) in enumerate(samples):
        if extension not in shards.IMAGE_EXTENSIONS:
            known = ", ".join(shards.IMAGE_EXTENSIONS)
            raise ValueError(f"{called(number)} is of type {extension!r}; allowed: {known}")
        try:
            stored = images.storable(image, extension)
        except images.Unreadable as error:
            broken.append(f"{called(number)} cannot be decoded ({error})")
        if not broken:
            yield stored, extension, said


def _write_tar(path: Path, samples: list[tuple[bytes, str, bytes]], first: int, kind: str) -> None:
    with tarfile.TarFile(path, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (image, extension, said) in enumerate(samples, start=first):
            for ending, data in ((extension, image), (kind, said)):
                info = tarfile.TarInfo(f"s{number:07d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _lines(what: str, texts: Sequence[str]) -> bytes:
    if not texts:
        raise ValueError(f"a test set needs at least one {what}")
    for line in texts:
        if not line.strip() or len(line.splitlines()) != 1:  # other readers break lines wherever Python does
            raise ValueError(f"{line!r} is not a {what}: it must be one line of text")
    return "".join(f"{line}\n" for line in texts).encode()


def read(url: str, split: str = "test") -> TestSet:
    """Read every label and hash every image of a test set.

    Raises ValueError if there is none, a file is missing or damaged, a label is not a class, or captions are in place
    of the classes.
    """
    url = storage.absolute(url)
    if (kind := kind_of(url)) is not None:
        raise ValueError(
            f"{url} is a test set of kind {kind!r} ({TYPE}), and one with a class for each image is needed"
        )
    if not any(storage.exists(storage.join(url, name)) for name in (CLASSES, TEMPLATES, split)):
        raise ValueError(f"no test set at {url}: expected {CLASSES}, {TEMPLATES} and {split}/0.tar, ...")
    classes = _classes(url)
    templates = tuple(line for line in _text(url, TEMPLATES) if line)
    if wrong := [template for template in templates if "{c}" not in template]:
        raise ValueError(f"{url}: the template {wrong[0]!r} has no {{c}} where the class name goes")

    def parsed(said: bytes) -> int:
        label = foreign.class_number(said.strip())
        if label is None or label >= len(classes):
            shown = said.strip().decode(errors="replace")
            raise ValueError(f"has label {shown!r}; {CLASSES} has {len(classes)} classes, 0 to {len(classes) - 1}")
        return label

    found = scan(url, split, "cls", "label", "an image with a .cls label", parsed)
    pictures = [replace(picture, label=label) for picture, label in found]
    if not pictures:
        raise ValueError(f"{storage.join(url, split)} holds no labelled images")
    digest = hashlib.sha256(json.dumps(["test set 1", classes, templates]).encode())
    for picture in pictures:
        digest.update(f"\n{picture.label} {picture.sha256}".encode())
    return TestSet(url, split, classes, templates, tuple(pictures), digest.hexdigest())


def kind_of(url: str) -> str | None:
    """What dataset_type.txt of this folder says, in lower case; None without one: images with a class each."""
    place = storage.join(storage.absolute(url), TYPE)
    return text.decoded(storage.read(place), place).strip().lower() if storage.exists(place) else None


def scan(
    url: str, split: str, kind: str, limit: str, wanted: str, parsed: Callable[[bytes], T]
) -> Iterator[tuple[Picture, T]]:
    """Every image of a split, hashed, its label -1, and what is said of it: the member of this kind, parsed.

    limit: of shards.MAX_BYTES, for what is said; of a longer one `parsed` gets one byte more. Its ValueErrors follow
    the sample's key. wanted: a sample, in words. Raises ValueError if a tar is missing or damaged, or a sample is
    another one.
    """
    counted = "".join(_text(url, f"{split}/{COUNT}"))
    if not re.fullmatch("[0-9]{1,9}", counted) or int(counted) == 0:
        raise ValueError(f"{storage.join(url, split, COUNT)} says {counted[:50]!r}, not how many tars there are")
    passed_over: list[str] = []
    with log.progress(f"reading {url}", int(counted), "tars") as bar, tempfile.TemporaryDirectory() as scratch:
        for number in range(int(counted)):
            path = _fetch(url, split, number, Path(scratch))
            try:
                yield from _pictures(path, number, kind, shards.MAX_BYTES[limit], wanted, parsed, passed_over)
            except (Damaged, ValueError) as error:
                raise ValueError(f"{storage.join(url, split)}: {error}") from error
            _drop(path, Path(scratch))
            bar.add(1)
    if passed_over:
        log.say(hidden.said(len(passed_over), storage.join(url, split)))


def class_names(url: str) -> tuple[str, ...]:
    """What the classes of the split in this folder are called, by label; () where nothing beside the folder says it."""
    parent = url.rstrip("/").rpartition("/")[0]
    in_one = parent and not parent.endswith("/")  # a bucket lies in no folder
    return _classes(parent) if in_one and storage.exists(storage.join(parent, CLASSES)) else ()


def stored(test: Images) -> Iterator[tuple[Picture, bytes]]:
    """Every image with its encoded bytes, in order; one tar at a time on this machine's disk.

    Raises ValueError where an image is no longer the one that `read` saw.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for number in sorted({picture.tar for picture in test.pictures}):
            path = _fetch(test.url, test.split, number, Path(scratch))
            with open(path, "rb") as file:
                for picture in (picture for picture in test.pictures if picture.tar == number):
                    file.seek(picture.offset)
                    data = file.read(picture.bytes)
                    if hashlib.sha256(data).hexdigest() != picture.sha256:
                        raise ValueError(f"{storage.join(test.url, test.split, path.name)} changed while it was used")
                    yield picture, data
            _drop(path, Path(scratch))


def open_image(test: Images, data: bytes) -> Image.Image:
    """An image of the test set, as pipeline.images decodes it. Raises ValueError that names the tar and the key."""
    try:
        return images.open_image(data)
    except images.Unreadable as error:
        sha256 = hashlib.sha256(data).hexdigest()
        place = f"an image that is not of this test set (sha256 {sha256[:12]})"
        for picture in test.pictures:
            if picture.sha256 == sha256:
                place = f"the image of {picture.key!r} in {test.split}/{picture.tar}.tar"
                break
        raise ValueError(f"{place} cannot be decoded: {error}") from error


def _pictures(
    path: Path,
    number: int,
    kind: str,
    limit: int,
    wanted: str,
    parsed: Callable[[bytes], T],
    passed_over: list[str],
) -> Iterator[tuple[Picture, T]]:
    groups = tars.grouped(path, passed_over=passed_over)
    with open(path, "rb") as file:
        for key, members in groups.items():
            found = [ending for ending in shards.IMAGE_EXTENSIONS if ending in members]
            if len(found) != 1 or kind not in members:
                has = ", ".join(sorted(members))
                raise ValueError(f"{path.name}: {key!r} is not {wanted} (it has {has})")
            file.seek(members[kind][0])
            try:
                said = parsed(file.read(min(members[kind][1], limit + 1)))
            except ValueError as error:
                raise ValueError(f"{path.name}: {key!r} {error}") from error
            offset, length = members[found[0]]
            if length > shards.MAX_BYTES["image"]:
                raise ValueError(f"{path.name}: the image of {key!r} has {length:,} bytes")
            file.seek(offset)
            data = file.read(length)
            try:
                images.check_header(data)
            except images.Unreadable as error:
                raise ValueError(f"{path.name}: the image of {key!r}: {error}") from error
            yield Picture(key, -1, found[0], hashlib.sha256(data).hexdigest(), number, offset, length), said


def _classes(url: str) -> tuple[str, ...]:
    """A line, a class, as CLIP_benchmark has it: a blank one in between is a class without a name, and is said."""
    classes = _text(url, CLASSES)
    if blank := [number for number, name in enumerate(classes) if not name]:
        shown = ", ".join(str(number + 1) for number in blank[:5]) + (", ..." if len(blank) > 5 else "")
        log.warn(
            f"{storage.join(url, CLASSES)}: line {shown} is blank; a label is the number of its line, so that is a "
            f"class without a name (label {blank[0]}), and the classes after it keep their labels"
        )
    return classes


def _text(url: str, name: str) -> tuple[str, ...]:
    """The lines of a file, blank ones too, each without blanks around it."""
    place = storage.join(url, name)
    try:
        lines = tuple(line.strip() for line in text.lines(storage.read(place), place))
    except FileNotFoundError as error:
        raise ValueError(f"the test set at {url} is not complete: {name} is missing") from error
    if not any(lines):
        raise ValueError(f"{place} is empty")
    return lines


def _fetch(url: str, split: str, number: int, scratch: Path) -> Path:
    place = storage.join(url, split, f"{number}.tar")
    if not storage.exists(place):
        raise ValueError(f"the test set at {url} is not complete: {split}/{number}.tar is missing")
    path = storage.local(place)
    if path is None:
        path = scratch / f"{number}.tar"
        storage.download(place, path)
    return path


def _drop(path: Path, scratch: Path) -> None:
    if path.parent == scratch:
        path.unlink()
