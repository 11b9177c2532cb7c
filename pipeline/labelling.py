"""A test set from a source that knows the class of each image, or its captions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from infra import config, storage
from pipeline import captioned, dataset, naming, testsets
from pipeline.source import Source


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """One test set to be made."""

    source: Source
    out: str
    """Folder of the test set: a path or s3://bucket/folder."""
    samples: int | None = None
    """How many images; all that the source has, if it has an end."""
    kind: Literal["classes", "captions"] = "classes"
    """What is said of each image: its class, or, for retrieval, one or several captions."""
    classes: str | None = None
    """Take labels, class names and prompts of a well-known set, e.g. imagenet1k (pipeline/classes/)."""
    split: str = "test"
    """Name of the split; with picturebook, another split is another set of images (e.g. validation)."""
    seed: int = 0
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples <= 0:
            raise ValueError(f"samples must be above 0, not {self.samples}")
        if self.classes is not None and self.kind == "captions":
            raise ValueError(
                "--classes names the classes of images, and --kind captions asks for none: give one of them"
            )
        if not self.split.isidentifier():
            raise ValueError(f"split is a plain word such as test, not {self.split!r}")

    def run(self) -> str:
        """Make the test set, or say that it is there. Returns the last line to print."""
        out = storage.absolute(self.out)
        plan, identity, write = self._captions(out) if self.kind == "captions" else self._classes(out)
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would write a {plan} to {out}"
        recipe = config.to_json({name: getattr(self, name) for name in ("source", "samples", "split", "seed")})
        recipe |= {"kind": self.kind} if self.kind != "classes" else {}
        recipe |= {"classes": self.classes} if self.classes is not None else {}
        if identity:
            recipe["identity"] = identity
        fresh = not storage.names(out)
        dataset.claim(out, {"testset": recipe}, self.source.PATHS)
        there = testsets.is_complete(out, self.split)
        if not there:
            try:
                write()
            except ValueError:
                if fresh:  # else what was repaired would be other input than that of the folder's recipe
                    storage.remove(out)
                raise
        return f"{'nothing to do: ' if there else ''}{plan}, {self._count(out)}, at {out}"

    def _classes(self, out: str) -> tuple[str, dict[str, Any], Callable[[], object]]:
        """What it will be, what it depends on, and how to write it."""
        found = self.source.labelled(self.samples, self.seed, self.split)
        if self.classes is not None:
            found = naming.renamed(found, self.classes)
        plan = f"test set of {len(found.classes)} classes and {len(found.templates)} templates"
        return (
            plan,
            found.identity,
            lambda: testsets.write(out, found.samples, found.classes, found.templates, self.split, found.called),
        )

    def _captions(self, out: str) -> tuple[str, dict[str, Any], Callable[[], object]]:
        found = self.source.captioned(self.samples, self.seed, self.split)
        return (
            "test set with captions",
            found.identity,
            lambda: captioned.write(out, found.samples, self.split, found.called),
        )

    def _count(self, out: str) -> str:
        """Read from what was written."""
        if self.kind == "classes":
            return f"{len(testsets.read(out, self.split).pictures):,} images"
        made = captioned.read(out, self.split)
        return f"{len(made.texts):,} captions of {len(made.pictures):,} images"
