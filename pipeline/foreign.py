"""A folder of someone else's shards: which tars are meant, what is in them, and when too much of it is odd to go on."""

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from infra import storage
from infra.hidden import is_hidden
from pipeline import images, tars
from pipeline.shards import IMAGE_EXTENSIONS, INDEX, LABELLED, MAX_BYTES, SUCCESS, json_object

EXAMPLES = "odd.json"  # beside the indexes in our cache: the first sample of each outcome, in words
MAX_BAD_SHARE = 0.05  # of the samples; more are rather a layout that is read wrongly than damage
NO_SAMPLES = ("empty_shard", "stray_file")  # outcomes of tars and files with which no pair is lost
MAX_CLASSES = 1_000_000  # a linear head has a row for each
SHOWN = 3  # outcomes that a refusal gives an example of
_SAID = ("row", "caption", "url", "label")  # what is kept of a sample that is no pair
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
_OURS = ("dataset.json", "recipe.json", "nshards.txt")  # a folder with one of these is a dataset or a test set


def tars_in(url: str) -> list[str]:
    """Relative paths of the tars in a folder and its subfolders, sorted; not those in datasets and test sets of ours.

    Raises ValueError if there are none, or compressed ones.
    """
    found = [name for name in storage.find(url) if storage.ATTEMPT not in name and not is_hidden(name)]
    ours = sorted({name.rpartition("/")[0] for name in found if name.rpartition("/")[2] in _OURS and "/" in name})
    foreign = [name for name in found if not any(name.startswith(f"{folder}/") for folder in ours)]
    direct = [name for name in storage.names(url) if not is_hidden(name)]  # pipes and links to nowhere too
    if packed := [name for name in foreign if name.endswith(_COMPRESSED)]:
        raise ValueError(
            f"{storage.join(url, packed[0])} is compressed, and shards are plain .tar files, read from any place in "
            f"them: decompress all {len(packed):,} such files (gunzip, unxz, unzstd), or move them elsewhere"
        )
    names = {name for name in [*foreign, *direct] if name.endswith(".tar")}
    if not names:
        instead = f"; give one of the datasets in it: {', '.join(ours[:5])}" if ours else ""
        raise ValueError(f"no dataset at {url}: neither a dataset.json nor .tar shards were found there{instead}")
    return sorted(names)


def bad(outcomes: dict[str, int]) -> int:
    """How many samples are no pairs."""
    return sum(count for name, count in outcomes.items() if name not in (SUCCESS, *NO_SAMPLES))


def refused(
    url: str, outcomes: dict[str, int], examples: dict[str, str], max_bad_share: float, labelled: bool
) -> ValueError:
    """Too many samples are odd: how many of which kind, an example of the most frequent ones, and the way past."""
    number, good = bad(outcomes), outcomes.get(SUCCESS, 0)
    odd = sorted(((count, name) for name, count in outcomes.items() if name != SUCCESS), reverse=True)
    counts = ", ".join(f"{count:,} {name}" for count, name in odd)
    shown = "; ".join(examples[name][:240] for _, name in odd[:SHOWN] if name in examples)
    of_all = f"{number:,} of {number + good:,} samples" if number else "what it holds"
    said = f"{url}: {of_all} cannot be used ({counts}): {shown}"
    if not good:
        return ValueError(f"{said}. Nothing is left to use")
    if labelled:
        return ValueError(f"{said}. More than {100 * max_bad_share:g}% are refused: mend them or take them out")
    return ValueError(
        f"{said}. More than {100 * max_bad_share:g}% are refused; {way_past(url, number / (number + good))}"
    )


def way_past(url: str, share: float = 0.0) -> str:
    """What to do about bad pairs of a dataset. share: of all pairs, where it is known."""
    limit = f" --max-bad-share {math.ceil(100 * share) / 100:g}" if share > MAX_BAD_SHARE else ""
    return f"to leave them out for everybody: antidote verify --dataset {url} --decode{limit} --leave-out NEW"


class Odd(ValueError):
    """A sample of someone else's tar that is no pair, in words that follow the tar's name.

    outcome: under which it is counted.
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass
class Oddities:
    """What was met in someone else's tars. examples: the first of each outcome, in words. hidden: files passed over."""

    examples: dict[str, str] = field(default_factory=dict)
    hidden: int = 0


def indexed(path: Path, labelled: bool = False, met: Oddities | None = None) -> pa.Table:
    """The index of a shard that someone else wrote, INDEX. Row id: 63 bits of a hash of image and caption.

    labelled: of images with a class in KEY.cls, LABELLED; a caption may be missing. Else it lies in KEY.txt or, where
    there is none, as `caption` in KEY.json. It is taken as it is, byte for byte: row id and digest go by it.

    A sample that is no pair is a failed row with its key, its outcome one of: no_image, no_caption, no_label,
    several_images, not_utf8, bad_json, bad_label, too_large, those of pipeline.images for a header that cannot be read;
    a file that belongs to no sample counts as stray_file, a tar of nothing as empty_shard. met: gets what was odd.
    Raises Damaged for a broken tar, ValueError for keys with dots.
    """
    rows: list[dict[str, Any]] = []
    met = met if met is not None else Oddities()

    def odd(key: str, error: Odd, known: dict[str, Any]) -> None:
        unknown = {"row": _row_id(f"no pair\0{key}".encode()), "key": key}
        rows.append(unknown | {name: known[name] for name in _SAID if name in known} | {"outcome": error.outcome})
        met.examples.setdefault(error.outcome, f"{path.name}: {error}")

    empty, stray, hidden = path.is_file() and not path.stat().st_size, list[str](), list[str]()
    groups = {} if empty else tars.grouped(path, stray, hidden)
    if not groups and not stray:
        what = "it is empty" if empty else f"it holds no {'labelled images' if labelled else 'image-caption pairs'}"
        odd(path.name, Odd("empty_shard", what), {})
    with open(path, "rb") as file:
        for key, members in groups.items():
            row: dict[str, Any] = {}
            try:
                _read(row, file, key, members, labelled)
                rows.append(row | {"outcome": SUCCESS})
            except Odd as error:
                odd(key, error, row)
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}") from error
    met.hidden += len(hidden)
    for name in sorted(set(stray)):
        odd(name, Odd("stray_file", f"it holds {name!r}, which {tars.STRAY}"), {})
    return pa.Table.from_pylist(rows, schema=LABELLED if labelled else INDEX)


def _read(row: dict[str, Any], file: BinaryIO, key: str, members: dict[str, tuple[int, int]], labelled: bool) -> None:
    """Puts what a sample says into `row`, bit by bit. Raises Odd if it is no pair, ValueError for a key with dots."""
    row["key"] = key
    found = [kind for kind in IMAGE_EXTENSIONS if kind in members]
    has = f"it has {sorted(members)[:8]}"
    if dotted := _dotted(members):
        raise ValueError(
            f"{f'{key}.{dotted}'[:200]!r} has a dot inside its key: a key ends at the first dot of a file's name, so "
            f"that this one would be {key[:200]!r} and its file of the kind {dotted[:100]!r}; name files "
            "KEY.EXTENSION, with no dot in KEY"
        )
    needs = f"{key!r} is not an image with a .{'cls label' if labelled else 'txt caption'}"
    if not found:
        raise Odd("no_image", f"{needs} ({has})")
    if len(found) > 1:
        raise Odd("several_images", f"{key!r} has several images ({', '.join(found)}); keep one")
    places = {"image": members[found[0]]}
    places |= {kind: members[kept] for kind, kept in (("text", "txt"), ("json", "json")) if kept in members}
    content = {kind: _content(file, key, kind, place) for kind, place in places.items()}
    try:
        meta = json_object(content["json"]) if "json" in content else {}
    except ValueError as error:
        raise Odd("bad_json", f"the .json of {key!r} {error}") from error
    said = _of(meta, "caption", str)
    if "text" not in content and said is None and not labelled:
        raise Odd("no_caption", f"{needs} ({has}{', no caption in its .json' if 'json' in members else ''})")
    if labelled and "cls" not in members:
        raise Odd("no_label", f"{needs} ({has})")
    try:
        caption = content["text"].decode() if "text" in content else "" if labelled else said
        text = caption.encode()
    except UnicodeError as error:
        raise Odd("not_utf8", f"the caption of {key!r} is not UTF-8") from error
    image_sha256 = hashlib.sha256(content["image"])
    row |= {"row": _row_id(image_sha256.digest() + text), "caption": caption, "url": _of(meta, "url", str)}
    if labelled:
        number = _content(file, key, "label", members["cls"])
        if (label := class_number(number)) is None:
            raise Odd(
                "bad_label",
                f"the label of {key!r} is {number.decode(errors='replace')!r}, "
                f"no whole number from 0 to {MAX_CLASSES - 1:,}",
            )
        row["label"] = label
    try:
        images.check_header(content["image"])
    except images.Unreadable as error:
        raise Odd(error.outcome, f"the image of {key!r}: {error}") from error
    row |= {
        "extension": found[0],
        "width": _of(meta, "width", int),
        "height": _of(meta, "height", int),
        "source_sha256": _of(meta, "sha256", str),
        "image_sha256": image_sha256.hexdigest(),
    }
    for kind, (offset, length) in places.items():
        row |= {f"{kind}_offset": offset, f"{kind}_bytes": length}


def _dotted(members: dict[str, tuple[int, int]]) -> str | None:
    """The ending of an image whose key seems to have a dot: `0.jpg` of `a.0.jpg`, beside `a.0.txt` or nothing else."""
    whole = any(kind in members for kind in (*IMAGE_EXTENSIONS, "txt", "json", "cls"))
    for ending in members:
        stem, dot, kind = ending.rpartition(".")
        if dot and kind in IMAGE_EXTENSIONS and (not whole or {f"{stem}.txt", f"{stem}.cls"} & members.keys()):
            return ending
    return None


def _row_id(identity: bytes) -> int:
    return int.from_bytes(hashlib.sha256(identity).digest()[:8], "little") >> 1


def class_number(data: bytes) -> int | None:
    """What a KEY.cls says: a class, counted from 0, in decimal text. None if it says anything else."""
    text = data.strip()
    return int(text) if text.isdigit() and int(text) < MAX_CLASSES else None


def _content(file: BinaryIO, key: str, kind: str, place: tuple[int, int]) -> bytes:
    offset, length = place
    if length > MAX_BYTES[kind]:
        raise Odd("too_large", f"the {kind} of {key!r} has {length:,} bytes; at most {MAX_BYTES[kind]:,} are read")
    file.seek(offset)
    return file.read(length)


def _of(meta: dict[str, Any], name: str, kind: type) -> Any:
    """What someone else's JSON says, if it is of the type that our index has there."""
    value = meta.get(name)
    if type(value) is not kind:
        return None
    return value if kind is not int or value in range(1 << 31) else None
