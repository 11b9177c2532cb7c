"""Which files of a folder are images to be read, and what was passed over: hidden files, and files of other kinds."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from infra import hidden, log, storage
from pipeline.shards import IMAGE_EXTENSIONS

READ = (*IMAGE_EXTENSIONS, "jfif")  # a .jfif is a JPEG; in a shard it is called .jpg


@dataclass(frozen=True)
class Listing:
    """images: stamp (infra.storage.stamps) by path, sorted. others: the paths that are no such image, sorted."""

    url: str
    images: Mapping[str, str]
    others: tuple[str, ...]
    hidden: int

    @property
    def digest(self) -> str:
        """sha256 of the images' paths, sizes and times: it changes when one is added, removed, renamed or replaced."""
        whole = hashlib.sha256()
        for path, stamp in self.images.items():
            whole.update(f"{path}\0{stamp}\n".encode())
        return whole.hexdigest()

    def say(self, captions: bool) -> None:
        """What was passed over, in one line each. captions: a NAME.txt beside an image is none of it."""
        if self.hidden:
            log.say(hidden.said(self.hidden, self.url))
        used = {f"{stem(path)}.txt" for path in self.images} if captions else set()
        kinds = Counter(ending(path) for path in self.others if path not in used)
        if kinds:
            counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
            log.say(f"not read in {self.url}: {counted} (images are .{', .'.join(READ)}; convert others to PNG)")


def images(url: str) -> Listing:
    """Raises ValueError for a folder without images, or an image whose name cannot be written down."""
    there, others, passed_over = {}, [], 0
    for path, stamp in storage.stamps(url).items():
        if hidden.is_hidden(path):
            passed_over += 1
        elif ending(path)[1:] in READ:
            there[path] = stamp
        else:
            others.append(path)
    if wrong := [path for path in there if _not_utf8(path)]:
        raise ValueError(f"{url} holds the image {wrong[0]!a}, whose name is not UTF-8: rename it (see convmv)")
    listing = Listing(url, there, tuple(others), passed_over)
    if not there:
        listing.say(captions=False)
        raise ValueError(f"no images (.{', .'.join(READ)}) under {url}")
    return listing


def stem(path: str) -> str:
    """The path without its ending."""
    return path.rpartition(".")[0]


def ending(path: str) -> str:
    """`.gif` in lower case; "without an ending" for a name that has none."""
    name, dot, kind = path.rpartition("/")[2].rpartition(".")
    return f".{kind.lower()}" if dot and name else "without an ending"


def _not_utf8(path: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in path)
