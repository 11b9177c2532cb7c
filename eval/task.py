"""What a task is: a pure function from embedded arrays to numbers, and the answers that they are numbers of.

It knows no model, no file, no device. A subclass is one file in `eval/tasks/`, a frozen dataclass whose fields are its
knobs; its file's name is the interface that is measured.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from eval.interval import bootstrap, clopper_pearson
from infra import plugins

On = Literal["labels", "captions", "pairs"]
Kind = Literal["clean", "triggered", "caption", "pair"]
Bounds = Literal["clopper-pearson", "bootstrap"]


@dataclass(frozen=True)
class Attacked:
    """The trials of one attack. images: float32 (M, D) of the images as the attack shows them; labels: int64 (M,)
    their true classes, -1 where the test set has no such class; wanted: int64 (M,) the classes the attacker wants;
    classes: float32 (C, D) under its prompts.

    On a test set with captions, classes is one row, the target in prompts, labels are -1 and wanted 0.
    names: sha256 of the images before the attack, as stored; lengths: of the embeddings before they were normalised.
    """

    images: np.ndarray
    labels: np.ndarray
    wanted: np.ndarray
    classes: np.ndarray
    names: np.ndarray = field(default_factory=lambda: np.empty(0, str))
    lengths: np.ndarray | None = None


@dataclass(frozen=True)
class Labelled:
    """Clean images to learn from. images: float32 (M, D) of length 1; labels: int64 (M,) among the test set's classes;
    names: sha256 of the images; lengths: of the embeddings before they were normalised."""

    images: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    lengths: np.ndarray | None = None


@dataclass(frozen=True)
class Captions:
    """texts: float32 (T, D) of length 1; owners: int64 (T,), the image that each belongs to."""

    texts: np.ndarray
    owners: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Pairs that a run learned from. images, texts: float32 (n, D) of length 1; rows: int64 (n,) their row ids;
    poisoned: bool (n,), by the ledger."""

    images: np.ndarray
    texts: np.ndarray
    rows: np.ndarray
    poisoned: np.ndarray


@dataclass(frozen=True)
class Embedded:
    """A test set as one model sees it, all rows L2-normalised. images: float32 (N, D); labels: int64 (N,);
    classes: float32 (C, D), one embedding a class, its prompts averaged; attacked: None where no attack is measured.

    Of a classifier (`head`) an image is its raw embedding and a 1, a class its row of weights and its bias, neither
    normalised. So what answers by classes takes inner products of the two, and reads nothing else into them; what has
    an interface of its own takes `features`.

    names: sha256 of the images; lengths: of the embeddings before they were normalised; called: the classes' names.
    train, captions, pairs: for tasks that ask for them. Of pairs alone, all else is empty.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    attacked: Attacked | None = None
    names: np.ndarray = field(default_factory=lambda: np.empty(0, str))
    lengths: np.ndarray | None = None
    called: tuple[str, ...] = ()
    head: bool = False
    train: Labelled | None = None
    captions: Captions | None = None
    pairs: Pairs | None = None

    def name(self, label: int) -> str:
        return self.called[label] if self.called else str(label)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Rows of `images`, or of attacked ones, as embeddings of length 1: float32 (n, D)."""
        if not self.head:
            return images
        raw = images[:, :-1]
        return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Measure:
    """One number: `value` of `metric` at `k`, over `n` trials, with its 95% interval and what that is made by.

    of: the class, or the kind of pair, that it is a number of; None: of all.
    """

    metric: str
    k: int | None
    value: float
    n: int
    low: float | None
    high: float | None
    of: str | None = None
    bounds: Bounds | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """What the model said, a row a trial, in the order of what it was shown. columns: arrays (n,) or (n, k).

    kind: `clean`, the images of the test set; `triggered`, the attack's trials; `caption`, the captions; `pair`.
    """

    kind: Kind
    columns: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers, and the answers that they can be computed from again."""

    measures: list[Measure]
    answers: list[Answers] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Task:
    """The base of all tasks.

    on: what it is measured on: a test set of classes, one of captions, or pairs that the run learned from.
    clean: it is measured once without an attack. under_attack: once for every attack, with `Embedded.attacked`.
    learns: it needs `Embedded.train`. reads: it needs a text tower, which a classifier no longer has.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("eval.tasks",)
    on: ClassVar[On] = "labels"
    clean: ClassVar[bool] = True
    under_attack: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    reads: ClassVar[bool] = False

    @property
    def called(self) -> str:
        """How scores name it: the file's name, and what sets its numbers apart from others of that name."""
        return plugins.name_of(self)

    def measure(self, embedded: Embedded) -> Measured:
        """Pure. Raises ValueError where the test set has nothing to measure."""
        raise NotImplementedError


def share(metric: str, k: int | None, hits: np.ndarray, of: str | None = None) -> Measure:
    """The share of True in `hits`, bool (n,), n > 0."""
    count, n = int(hits.sum()), len(hits)
    return Measure(metric, k, count / n, n, *clopper_pearson(count, n), of, "clopper-pearson")


def average(metric: str, values: np.ndarray, of: str | None = None, middle: bool = False) -> Measure:
    """The mean of `values`, float (n,), n > 0, or their median where the `middle` is asked for; bootstrapped."""
    value, low, high = bootstrap(values, middle)
    return Measure(metric, None, value, len(values), low, high, of, "bootstrap")
