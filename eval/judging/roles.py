"""The runs of a grid side by side: what each of them is to the attack, and what was measured of it.

A run's role follows from its lineage alone: which of its steps learned from the poisoned pairs (the digest of that
dataset against the ledger's), with which objective, and what was done afterwards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Ancestor, Run
from eval.store.scores import Score

Kind = Literal["floor", "poisoned", "baseline", "filtered", "defended", "unknown"]
ORDER: tuple[Kind, ...] = ("floor", "poisoned", "baseline", "filtered", "defended", "unknown")
CURES: tuple[Kind, ...] = ("filtered", "defended")
Number = tuple[str, str, int | None, str | None]  # task, metric, k, and the class or kind of pair that it is of
ZERO_SHOT = ("zeroshot", "attack_success")  # the tasks of the headline numbers
HEADLINES = ("accuracy", "attack_success")
UNDEFENDED = ("clip", "augmented", "mmcl")  # the CLIP loss alone, in pretraining and in finetuning
POINTS_ALLOWED = 0.03  # how much clean accuracy a cure may cost before it is called none


@dataclass(frozen=True)
class Role:
    """What a run is to an attack. words: for people.

    floor: no step of its lineage saw the poisons. poisoned: it learned from them last, undefended, be it from a part
    of them that nobody chose, as where damaged pairs were left out. baseline: finetuned on other pairs afterwards,
    without a defence. filtered: it never saw the poisoned set whole, only what a scan left.
    defended: any other. unknown: weights from elsewhere, finetuned or not, of which no known step saw the poisons: no
    floor, and no start of a cure. twin: a floor that began with the very pairs that the attack then poisoned.
    """

    kind: Kind
    words: str
    twin: bool = False


@dataclass(frozen=True)
class Result:
    """One run on one test set under one attack (None: no attack was measured). found: every number of it; those of
    pairs that it learned from are of no test set, and are here too."""

    run: Run
    role: Role
    found: dict[Number, Score]

    def get(self, metric: str, k: int = 1) -> Score | None:
        """A zero-shot number."""
        return next((score for task in ZERO_SHOT if (score := self.at(task, metric, k))), None)

    def at(self, task: str, metric: str, k: int | None = 1, of: str | None = None) -> Score | None:
        """A number at any interface."""
        return self.found.get((task, metric, k, of))

    @property
    def accuracy(self) -> Score:
        return self.found["zeroshot", "accuracy", 1, None]

    @property
    def success(self) -> Score:
        return self.found["attack_success", "attack_success", 1, None]


@dataclass(frozen=True)
class Comparison:
    """All runs on one test set under one attack, in the order of ORDER.

    rows: each run at the last of its checkpoints that was measured. earlier: at the others, in the order of steps.
    """

    testset: TestSetRecord
    attack: AttackRecord | None
    rows: tuple[Result, ...]
    earlier: tuple[Result, ...] = ()

    def of(self, kind: Kind) -> list[Result]:
        return [row for row in self.rows if row.role.kind == kind]

    def measured(self) -> bool:
        """Whether both headline numbers are there for every run."""
        return not any(self.missing(row) for row in self.rows)

    def missing(self, row: Result) -> list[str]:
        """The headline numbers that a run lacks."""
        wanted = ["accuracy", *(["attack_success"] if self.attack else [])]
        return [metric for metric in wanted if row.get(metric) is None]

    @property
    def zero_shot(self) -> bool:
        """Whether any headline number was measured; not on a test set of captions."""
        return any(row.get(metric) for row in self.rows for metric in HEADLINES)

    def parent(self, row: Result) -> Result | None:
        """The run that a finetuned one started from, where it was measured beside it."""
        began = row.run.ancestors[0].weights_sha256 if row.run.ancestors else None
        return next((other for other in (*self.rows, *self.earlier) if other.run.weights_sha256 == began), None)

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
    poisoned_last = saw(run, attack, known)
    poisoned_before = any(saw(step, attack, known) for step in run.ancestors)
    undefended = run.objective in UNDEFENDED
    if not (poisoned_last or poisoned_before):
        left_of = [*run.filtered_from, *(digest for step in run.ancestors for digest in step.filtered_from)]
        known_all = run.known and all(step.known for step in run.ancestors)
        if any(carries(digest, attack, known) for digest in left_of):
            kind: Kind = "filtered"
        else:
            kind = "floor" if known_all else "unknown"
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
        unsaid = "" if all(step.known for step in run.ancestors) else "; what that learned from is not known"
        return f"finetuned from {run.ancestors[0].name} {how}{where}{unsaid}"
    if not run.known:
        return "weights from elsewhere; what it learned from is not known"
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


def saw(step: Run | Ancestor, attack: AttackRecord | None, known: Sequence[AttackRecord]) -> bool:
    """Whether a run's own steps learned from the attack's poisons, or from what a scan did not choose of them."""
    return any(carries(digest, attack, known) for digest in (step.dataset_digest, *step.part_of))


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
    """One comparison for every test set and attack that scores were measured for; clean scores belong to each.

    A run is left out of an attack's that it was not measured under, if it was under others and did not learn from its
    poisons: so grids of several attacks may lie in one folder. Any other gap stays, for whoever asks to see it.
    """
    found = []
    runs, attacks = list(runs), list(attacks)
    own: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        own.setdefault((score.run, score.checkpoint), []).append(score)
    for testset in testsets:
        under = {score.attack for score in scores if score.testset == testset.key}
        choices: list[AttackRecord | None] = [attack for attack in attacks if attack.key in under] or [None]
        for attack in choices:
            rows = []
            for run in runs:
                of_run = [s for s in own.get((run.key, run.version), ()) if s.testset in (None, testset.key)]
                if _takes_part(run, attack, attacks, [s for s in of_run if s.testset is not None]):
                    here = [s for s in of_run if s.attack in (None, attack.key if attack else None)]
                    rows.append(Result(run, role(run, attack, attacks), _by_number(here)))
            rows.sort(key=lambda row: (ORDER.index(row.role.kind), len(row.run.ancestors)))
            last = {row.run.key: row.run.checkpoint for row in sorted(rows, key=lambda row: row.run.checkpoint)}
            earlier = [row for row in rows if row.run.checkpoint != last[row.run.key]]
            kept = [row for row in rows if row.run.checkpoint == last[row.run.key]]
            earlier.sort(key=lambda row: row.run.checkpoint)
            found.append(Comparison(testset, attack, tuple(kept), tuple(earlier)))
    return found


def _takes_part(run: Run, attack: AttackRecord | None, known: Sequence[AttackRecord], scores: Sequence[Score]) -> bool:
    """scores: of the run on the test set, under whatever attack."""
    under = {score.attack for score in scores}
    if attack is None or not scores or attack.key in under or under == {None}:
        return bool(scores)
    steps: list[Run | Ancestor] = [run, *run.ancestors]
    return any(saw(step, attack, known) for step in steps)


def _by_number(scores: Iterable[Score]) -> dict[Number, Score]:
    found: dict[Number, Score] = {}
    for score in scores:
        first = found.setdefault((score.task, score.metric, score.k, score.of), score)
        if (first.value, first.n, first.seed) != (score.value, score.n, score.seed):  # cells were once named otherwise
            raise ValueError(
                f"{score.metric} of {score.run} on {score.testset} was measured twice (evaluation seeds {first.seed} "
                f"and {score.seed}): keep one --out for each --seed"
            )
    return found
