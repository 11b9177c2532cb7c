"""The folder that preview writes: the images of some poisoned pairs, what is said of them, and the contact sheet.

    pairs/00-clean.png      of the first pair shown, as stored; 00-poisoned.png and 00-difference.png lie beside it
    sheet.png               the contact sheet of these images
    preview.json            written last: the title, and of each pair its captions, notes and images, with their sha256

A report reads preview.json and the images that it names. They are PNG: nothing is lost between a dataset and a page.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from infra import storage
from infra.errors import Damaged
from pipeline import images
from poison.sheets import layout
from poison.sheets.layout import Pair, Shown

FORMAT = 1
ABOUT, SHEET, PAIRS = "preview.json", "sheet.png", "pairs"
KINDS = ("clean", "poisoned", "difference")


def refuse_image(flag: str, url: str) -> None:
    """Raises ValueError for the name of an image, which is what a preview was before it became a folder."""
    if url.rstrip("/").lower().endswith(".png"):
        folder = url.rstrip("/")[: -len(".png")]
        raise ValueError(
            f"{flag} is the folder of a preview, and {url!r} is named like an image: make the preview with "
            f"--out {folder}, where the contact sheet is {folder}/{SHEET}"
        )


def check(url: str) -> None:
    """Raises ValueError where something else than a preview is in the folder. Writes nothing."""
    if others := [name for name in storage.names(url) if name not in (ABOUT, SHEET, PAIRS)]:
        raise ValueError(f"{url} exists and is no preview (it holds {others[0]!r}): choose another --out")


def save(url: str, title: str, pairs: Sequence[Pair]) -> bool:
    """Write a preview in place of the one that is there. False: there is nothing to do, every byte is there already."""
    check(url)
    made = _files(title, pairs)
    drawn = [f"{PAIRS}/{name}" for name in storage.names(storage.join(url, PAIRS))]
    there = {name for name in (*drawn, SHEET, ABOUT) if storage.exists(storage.join(url, name))}
    if there == set(made) and all(storage.read(storage.join(url, name)) == made[name] for name in made):
        return False
    storage.remove(storage.join(url, ABOUT))  # first: while images are exchanged, nothing may say that they are whole
    for name in sorted(there - set(made)):
        storage.remove(storage.join(url, name))
    for name, data in made.items():
        storage.write(storage.join(url, name), data)
    return True


def _files(title: str, pairs: Sequence[Pair]) -> dict[str, bytes]:
    """Every file by its name, preview.json as the last."""
    made: dict[str, bytes] = {}
    lines: list[dict[str, Any]] = []
    for number, pair in enumerate(pairs):
        drawn = zip(KINDS, (pair.clean, pair.poisoned, layout.difference(pair.clean, pair.poisoned)), strict=True)
        named = {kind: (f"{PAIRS}/{number:02d}-{kind}.png", images.encode(image, "png")) for kind, image in drawn}
        made |= dict(named.values())
        lines.append(
            {
                "before": pair.was,
                "after": pair.now,
                "notes": [note for note in pair.notes if note],
                "images": {
                    kind: {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
                    for kind, (name, data) in named.items()
                },
            }
        )
    made[SHEET] = layout.to_png(pairs, title)
    made[ABOUT] = storage.dump_json({"format": FORMAT, "title": title, "pairs": lines})
    return made


def read(url: str) -> list[Shown]:
    """The pairs of a preview, images at their stored size.

    Raises ValueError where there is no preview, none that is complete, or one of another format; Damaged where
    preview.json is not what we write, or an image is not the one that it names.
    """
    place = storage.join(url, ABOUT)
    if not storage.exists(place):
        if storage.names(url):
            raise ValueError(f"{url} is no complete preview (it has no {ABOUT}): run the preview command once more")
        raise ValueError(f"no preview at {url}: make it with preview --out {url}")
    found = []
    for before, after, named in _lines(url, place):
        clean, poisoned, difference = (_image(url, name, sha256) for name, sha256 in named)
        found.append(Shown(clean, poisoned, difference, before, after))
    return found


def _lines(url: str, place: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Of each pair its captions before and after, and (name, sha256) of its images in the order of KINDS."""
    try:
        about = storage.read_json(place)
        if isinstance(about, dict) and about["format"] == FORMAT:
            return [
                (
                    line["before"],
                    line["after"],
                    [(line["images"][kind]["name"], line["images"][kind]["sha256"]) for kind in KINDS],
                )
                for line in about["pairs"]
            ]
        found = about["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{place} is damaged: run the preview command once more") from error
    raise ValueError(f"{url} has preview format {found!r}; this version reads format {FORMAT}")


def _image(url: str, name: str, sha256: str) -> bytes:
    place = storage.join(url, name)
    try:
        data = storage.read(place)
    except FileNotFoundError as error:
        raise Damaged(f"{place} is missing: run the preview command once more") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"{place} is not as {ABOUT} says (sha256 differs): run the preview command once more")
    return data
