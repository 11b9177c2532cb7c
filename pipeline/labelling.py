"""A labelled test set from a source that knows the class of each image."""

from dataclasses import dataclass

from infra import config, storage
from pipeline import dataset, testsets
from pipeline.source import Source


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """One test set to be made."""

    source: Source
    out: str
    """Folder of the test set: a path or s3://bucket/folder."""
    samples: int | None = None
    """How many images; all that the source has, if it has an end."""
    split: str = "test"
    """Name of the split; with picturebook, another split is another set of images (e.g. validation)."""
    seed: int = 0
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples <= 0:
            raise ValueError(f"samples must be above 0, not {self.samples}")
        if not self.split.isidentifier():
            raise ValueError(f"split is a plain word such as test, not {self.split!r}")

    def run(self) -> str:
        """Make the test set, or say that it is there. Returns the last line to print."""
        out = storage.absolute(self.out)
        labelled = self.source.labelled(self.samples, self.seed, self.split)
        plan = f"test set of {len(labelled.classes)} classes and {len(labelled.templates)} templates"
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would write a {plan} to {out}"
        recipe = config.to_json({name: getattr(self, name) for name in ("source", "samples", "split", "seed")})
        if labelled.identity:
            recipe["identity"] = labelled.identity
        fresh = not storage.names(out)
        dataset.claim(out, {"testset": recipe}, self.source.PATHS)
        there = testsets.is_complete(out, self.split)
        if not there:
            try:
                testsets.write(out, labelled.samples, labelled.classes, labelled.templates, self.split, labelled.called)
            except ValueError:
                if fresh:  # else what was repaired would be other input than that of the folder's recipe
                    storage.remove(out)
                raise
        pictures = len(testsets.read(out, self.split).pictures)
        return f"{'nothing to do: ' if there else ''}{plan}, {pictures:,} images, at {out}"
