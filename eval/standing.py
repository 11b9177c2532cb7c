"""Who stands where: the runs of a grid side by side, what each of them is to the attack, and what came out.

A run's role follows from its lineage alone: what its first ancestor was trained on (the digest of that dataset against
the ledger's), with which objective, and what was done afterwards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eval.records import AttackRecord, TestSetRecord
from eval.runs import Run
from eval.scores import Score

Kind = Literal["floor", "poisoned", "defended"]
ORDER: tuple[Kind, ...] = ("floor", "poisoned", "defended")
UNDEFENDED = "clip"
POINTS_ALLOWED = 0.03  # how much clean accuracy a cure may cost before it is called none


@dataclass(frozen=True)
class Role:
    """What a run is to an attack. words: for people; root: hash of the weights that all began with."""

    kind: Kind
    words: str
    root: str


@dataclass(frozen=True)
class Standing:
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
    """All runs on one test set under one attack, in the order floor, poisoned, defended."""

    testset: TestSetRecord
    attack: AttackRecord | None
    rows: tuple[Standing, ...]

    def of(self, kind: Kind) -> list[Standing]:
        return [row for row in self.rows if row.role.kind == kind]

    def measured(self) -> bool:
        """Whether both headline numbers are there for every run."""
        wanted = [("accuracy", 1)] + ([("attack_success", 1)] if self.attack else [])
        return all(key in row.scores for row in self.rows for key in wanted)

    def baseline(self, row: Standing) -> Standing | None:
        """The run that a cure started from or, for a defence during pretraining, the undefended one of its seed."""
        poisoned = self.of("poisoned")
        own = [other for other in poisoned if other.run.weights_sha256 == row.role.root]
        same_seed = [other for other in poisoned if other.run.seed == row.run.seed]
        return next(iter(own or same_seed or poisoned), None)


def role(run: Run, attack: AttackRecord | None, known: Sequence[AttackRecord] = ()) -> Role:
    """What a run is to an attack. known: the other attacks of the grid, which may lie on top of this one.

    run.ancestors: its lineage, first the run that it started from.
    """
    root = run.ancestors[-1] if run.ancestors else run
    if run.ancestors:
        words = f"finetuned from {run.ancestors[0].name} with {run.objective}"
        if carries(run.dataset_digest, attack, known):
            words += ", on the poisoned pairs"
    elif carries(run.dataset_digest, attack, known):
        undefended = ", undefended" if run.objective == UNDEFENDED else f" with {run.objective}"
        words = f"trained on the poisoned pairs{undefended}"
    else:
        others = [other.plugin for other in known if other.dataset_digest == run.dataset_digest]
        if attack is not None and run.dataset_digest == attack.parent_digest:
            where = "the same pairs, without the poison"
        else:
            where = f"the pairs of {others[0]}" if others else "other pairs"
        words = f"trained on {where}" + ("" if run.objective == UNDEFENDED else f" with {run.objective}")
    if not carries(root.dataset_digest, attack, known):
        return Role("floor", words, root.weights_sha256)
    return Role(
        "poisoned" if not run.ancestors and run.objective == UNDEFENDED else "defended", words, root.weights_sha256
    )


def carries(digest: str, attack: AttackRecord | None, known: Sequence[AttackRecord]) -> bool:
    """Whether the dataset of that digest holds the attack's poisons, be it below those of a later attack."""
    if attack is None:
        return False
    below = [other.parent_digest for other in known if other.dataset_digest == digest]
    return digest == attack.dataset_digest or any(carries(parent, attack, known) for parent in below)


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
                    rows.append(Standing(run, role(run, attack, attacks), by_metric))
            rows.sort(key=lambda row: (ORDER.index(row.role.kind), len(row.run.ancestors)))
            found.append(Comparison(testset, attack, tuple(rows)))
    return found


def _is_of(score: Score, run: Run, attack: str | None) -> bool:
    return (score.run, score.checkpoint) == (run.place, run.version) and score.attack in (None, attack)


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
