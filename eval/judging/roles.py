"""The runs of a grid side by side: what each of them is to the attack, and what was measured of it.

A run's role follows from its lineage alone: which of its steps learned from the poisoned pairs (the digest of that
dataset against the ledger's), with which objective, and what was done afterwards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Run
from eval.store.scores import Score

Kind = Literal["floor", "poisoned", "baseline", "filtered", "defended"]
ORDER: tuple[Kind, ...] = ("floor", "poisoned", "baseline", "filtered", "defended")
CURES: tuple[Kind, ...] = ("filtered", "defended")
UNDEFENDED = ("clip", "augmented", "mmcl")  # the CLIP loss alone, in pretraining and in finetuning
POINTS_ALLOWED = 0.03  # how much clean accuracy a cure may cost before it is called none


@dataclass(frozen=True)
class Role:
    """What a run is to an attack. words: for people.

    floor: no step of its lineage saw the poisons. poisoned: it learned from them last, undefended. baseline: finetuned
    on other pairs afterwards, without a defence. filtered: it never saw the poisoned set whole, only what a scan left.
    defended: any other. twin: a floor that began with the very pairs that the attack then poisoned.
    """

    kind: Kind
    words: str
    twin: bool = False


@dataclass(frozen=True)
class Result:
    """One run on one test set under one attack (None: no attack was measured)."""

    run: Run
    role: Role
    scores: dict[tuple[str, int | None], Score]

    def get(self, metric: str, k: int = 1) -> Score | None:
        return self.scores.get((metric, k))

    @property
    def accuracy(self) -> Score:
        return self.scores["accuracy", 1]

    @property
    def success(self) -> Score:
        return self.scores["attack_success", 1]


@dataclass(frozen=True)
class Comparison:
    """All runs on one test set under one attack, in the order of ORDER."""

    testset: TestSetRecord
    attack: AttackRecord | None
    rows: tuple[Result, ...]

    def of(self, kind: Kind) -> list[Result]:
        return [row for row in self.rows if row.role.kind == kind]

    def measured(self) -> bool:
        """Whether both headline numbers are there for every run."""
        wanted = [("accuracy", 1)] + ([("attack_success", 1)] if self.attack else [])
        return all(key in row.scores for row in self.rows for key in wanted)

    def start(self, row: Result) -> Result | None:
        """The run that a cure started from or, for a defence during pretraining, the undefended one of its seed."""
        poisoned = self.of("poisoned")
        started = [ancestor.weights_sha256 for ancestor in row.run.ancestors]
        own = [other for weights in started for other in poisoned if other.run.weights_sha256 == weights]
        same_seed = [other for other in poisoned if other.run.seed == row.run.seed]
        return next(iter(own or same_seed or poisoned), None)


def role(run: Run, attack: AttackRecord | None, known: Sequence[AttackRecord] = ()) -> Role:
    """What a run is to an attack. known: the other attacks of the grid, which may lie on top of this one.

    run.ancestors: its lineage, first the run that it started from.
    """
    poisoned_last = carries(run.dataset_digest, attack, known)
    poisoned_before = any(carries(step.dataset_digest, attack, known) for step in run.ancestors)
    undefended = run.objective in UNDEFENDED
    if not (poisoned_last or poisoned_before):
        left_of = [*run.filtered_from, *(digest for step in run.ancestors for digest in step.filtered_from)]
        kind: Kind = "filtered" if any(carries(digest, attack, known) for digest in left_of) else "floor"
    elif not undefended:
        kind = "defended"
    else:
        kind = "poisoned" if poisoned_last else "baseline"
    first = run.ancestors[-1] if run.ancestors else run
    twin = kind == "floor" and first.dataset_digest in beneath(attack, known)
    words = _words(run, attack, known, poisoned_last, undefended)
    return Role(kind, f"{words}, as a classifier" if run.classes else words, twin)


def _words(
    run: Run, attack: AttackRecord | None, known: Sequence[AttackRecord], poisoned_last: bool, undefended: bool
) -> str:
    if run.ancestors:
        how = "without a defence" if undefended else f"with {run.objective}"
        where = ", on the poisoned pairs" if poisoned_last else ""
        return f"finetuned from {run.ancestors[0].name} {how}{where}"
    how = "" if undefended else f" with {run.objective}"
    if any(carries(digest, attack, known) for digest in run.filtered_from):
        return f"trained on what a scan left of the poisoned pairs{how}"
    if poisoned_last:
        return f"trained on the poisoned pairs{how or ', undefended'}"
    if run.dataset_digest in beneath(attack, known):
        return f"trained on the same pairs, without the poison{how}"
    others = [other.plugin for other in known if other.dataset_digest == run.dataset_digest]
    name = run.dataset.rstrip("/").rsplit("/", 1)[-1]
    where = f"the pairs of {others[0]}" if others else name if attack is None else f"other pairs ({name})"
    return f"trained on {where}{how}"


def carries(digest: str, attack: AttackRecord | None, known: Sequence[AttackRecord]) -> bool:
    """Whether the dataset of that digest holds the attack's poisons, be it below those of a later attack.

    An attack may change nothing (`control` on PNGs): its dataset is its parent, and no step down.
    """
    if attack is None:
        return False
    below = [other.parent_digest for other in known if other.dataset_digest == digest != other.parent_digest]
    return digest == attack.dataset_digest or any(carries(parent, attack, known) for parent in below)


def beneath(attack: AttackRecord | None, known: Sequence[AttackRecord]) -> set[str]:
    """Digests of the datasets that the attack was laid on: its parent, and what lies below that by the others known."""
    if attack is None:
        return set()
    steps = [other for other in known if other.dataset_digest == attack.parent_digest != other.parent_digest]
    below = (beneath(other, known) for other in steps)
    return {attack.parent_digest}.union(*below)


def compare(
    scores: Sequence[Score],
    runs: Iterable[Run],
    testsets: Iterable[TestSetRecord],
    attacks: Iterable[AttackRecord],
) -> list[Comparison]:
    """One comparison for every test set and attack that scores were measured for; clean scores belong to each."""
    found = []
    runs, attacks = list(runs), list(attacks)
    for testset in testsets:
        here = [score for score in scores if score.testset == testset.key]
        under = [attack for attack in attacks if any(score.attack == attack.key for score in here)]
        choices: list[AttackRecord | None] = [*under] or [None]
        for attack in choices:
            key = attack.key if attack else None
            rows = []
            for run in runs:
                if by_metric := _by_metric([score for score in here if _is_of(score, run, key)]):
                    rows.append(Result(run, role(run, attack, attacks), by_metric))
            rows.sort(key=lambda row: (ORDER.index(row.role.kind), len(row.run.ancestors)))
            found.append(Comparison(testset, attack, tuple(rows)))
    return found


def _is_of(score: Score, run: Run, attack: str | None) -> bool:
    return (score.run, score.checkpoint) == (run.key, run.version) and score.attack in (None, attack)


def _by_metric(scores: Iterable[Score]) -> dict[tuple[str, int | None], Score]:
    found: dict[tuple[str, int | None], Score] = {}
    for score in scores:
        first = found.setdefault((score.metric, score.k), score)
        if first != score:
            raise ValueError(
                f"{score.metric} of {score.run} on {score.testset} was measured twice (evaluation seeds {first.seed} "
                f"and {score.seed}): keep one --out for each --seed"
            )
    return found
