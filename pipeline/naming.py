"""Class names and prompt templates of well-known data sets, for whoever brings the images: `testset --classes NAME`.

A set is one JSON in `pipeline/classes/`, which says its source; ImageNet's own are open_clip's. Images come with the
data set's own words for a class (a folder's name, a number, a synset), and get the names that are put into prompts.
"""

import difflib
import functools
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.source import Labelled

HOME = Path(__file__).parent / "classes"
SHOWN = 5  # classes in a message


@dataclass(frozen=True)
class Known:
    """names: of the classes, by label. folders: other words for them, by label, or (). templates: with `{c}`.

    numbers_from: the label that the data set's own numbers begin with.
    """

    names: tuple[str, ...]
    folders: tuple[str, ...]
    templates: tuple[str, ...]
    numbers_from: int = 0


def sets() -> list[str]:
    return sorted(path.stem for path in HOME.glob("*.json"))


@functools.cache
def known(name: str) -> Known:
    """Raises ValueError for a set that there is not, or one whose names are in a package that is not installed."""
    if name not in sets():
        raise ValueError(f"no class names are known of {name!r}; --classes is one of {', '.join(sets())}")
    if name == "imagenet1k":
        return _imagenet()
    told = json.loads((HOME / f"{name}.json").read_bytes())
    names, folders, templates = (tuple(told.get(what, ())) for what in ("names", "folders", "templates"))
    return Known(names, folders, templates, told.get("numbers_from", 0))


def _imagenet() -> Known:
    for package in ("open_clip", "timm"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"ImageNet's class names are those of {package}: pip install clip-antidote[train]")
    import open_clip  # takes seconds
    import timm

    synsets = (Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt").read_text().split()
    templates = tuple(template("{c}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    return Known(tuple(open_clip.IMAGENET_CLASSNAMES), tuple(synsets), templates)


def renamed(labelled: Labelled, name: str) -> Labelled:
    """The same images with the labels, names and templates of a known set, all of its classes.

    Raises ValueError for a class that the set does not have.
    """
    wanted = known(name)
    labels = matched(labelled.classes, wanted, labelled.numbered)
    if missing := [one for one, label in zip(labelled.classes, labels, strict=True) if label is None]:
        near = difflib.get_close_matches(missing[0], wanted.names, n=3) or wanted.names[:SHOWN]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"{name} has no class {missing[0]!r}{more}; it has {len(wanted.names)}, e.g. {', '.join(near)}"
        )

    def samples() -> Iterator[tuple[bytes, str, int]]:
        for image, extension, label in labelled.samples:
            if not 0 <= label < len(labels):
                raise ValueError(f"label {label} is none of {name}'s; allowed: 0 to {len(labels) - 1}")
            found = labels[label]
            assert found is not None
            yield image, extension, found

    return replace(labelled, classes=wanted.names, templates=wanted.templates, samples=samples())


def matched(words: Sequence[str], wanted: Known, numbered: bool) -> list[int | None]:
    """The label of each word for a class: by its number, by its name whatever its spelling, or, where the words are
    `numbered` by the data set itself and as many as its classes, by its place; None where nothing says it.

    By place (ImageNet's long names) only if no word that is known stands at another place.
    """
    if all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        numbers = [int(word) for word in words]
        first = 0 if 0 in numbers else wanted.numbers_from
        return [number - first if number - first < len(wanted.names) else None for number in numbers]
    places: dict[str, set[int]] = {}
    for spelled in (wanted.names, wanted.folders):
        for label, word in enumerate(spelled):
            places.setdefault(_plain(word), set()).add(label)
    named = [next(iter(found)) if len(found := places.get(_plain(word), set())) == 1 else None for word in words]
    in_order = all(label in (None, place) for place, label in enumerate(named))
    if numbered and None in named and in_order and len(words) == len(wanted.names):
        return list(range(len(words)))
    return named


def _plain(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word.lower())
