"""The grid behind eval/evaluate.py: every run on every test set, every task, under every attack where a task needs one.

One job is one run on one test set, so that its embeddings are made once; one immutable file is one cell of the grid.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.judging import roles
from eval.judging.roles import Comparison
from eval.measuring import checks, classifiers, matches, trials
from eval.measuring.scoring import Cell, Job, score
from eval.reporting import tabular
from eval.store import records, scores
from eval.store import runs as run_folders
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Ancestor, Run
from eval.store.scores import Score
from eval.task import Task
from infra import config, log, plugins, storage
from infra.spread import Backend, spread
from pipeline import testsets
from pipeline.testsets import TestSet
from poison.ledger import Ledger


@dataclass(frozen=True)
class Grid:
    """What is measured on what, each with the record that a folder of scores keeps of it."""

    runs: tuple[Run, ...]
    tests: tuple[tuple[TestSet, TestSetRecord], ...]
    attacks: tuple[tuple[Ledger, AttackRecord], ...]

    def compare(self, found: Sequence[Score]) -> list[Comparison]:
        runs = run_folders.named_apart(self.runs)
        return roles.compare(found, runs, [about for _, about in self.tests], [about for _, about in self.attacks])


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to measure, and where to put the scores."""

    runs: tuple[str, ...]
    """Finished runs. Include one trained without poison: it gives the floor."""
    testsets: tuple[str, ...]
    """Labelled test sets in CLIP_benchmark's WebDataset layout."""
    out: str
    """Folder of the scores; more grids may be added to it."""
    ledger: tuple[str, ...] = ()
    """Ledgers of the attacks to measure."""
    tasks: tuple[str, ...] = ("zeroshot", "attack_success")
    split: str = "test"
    """Split of the test sets."""
    checkpoint: str = "latest"
    """Which checkpoint of every run, e.g. step-0001234."""
    twins_allowed: int = 0
    """How many images clean finetuning data may share with poisoned rows (as they were before, in other rows)."""
    cpus: int = 1
    """CPU cores for each job (one run on one test set); they decode images."""
    seed: int = 0
    """For what an attack draws at test time, e.g. random places of a trigger."""
    backend: Backend = "ray"
    """Where jobs run: on a Ray cluster, or in this process."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        for name in ("runs", "testsets", "tasks"):
            if not getattr(self, name):
                raise ValueError(f"--{name} needs at least one value")
        repeated = [name for name in self.tasks if self.tasks.count(name) > 1]
        for name, twice in (
            ("tasks", repeated[0] if repeated else None),
            *((name, storage.twice(getattr(self, name))) for name in ("runs", "testsets", "ledger")),
        ):
            if twice is not None:
                raise ValueError(f"--{name} names {twice} twice")
        if self.cpus < 1:
            raise ValueError(f"--cpus is at least 1, not {self.cpus}")
        needy = [name for name in self.tasks if plugins.load(Task.FOLDERS, name, Task).under_attack]
        if needy and not self.ledger:
            raise ValueError(f"the task {needy[0]} needs the ledger of an attack: give --ledger, or other --tasks")

    def run(self) -> str:
        """Measure what has no score yet. Returns the entry's last line."""
        out = storage.absolute(self.out)
        grid = self._grid(out)
        jobs = self._jobs(grid, out)
        there = set(storage.names(out))
        missing = [job for job in (job.without(there) for job in jobs) if job.cells]
        total, num_missing = (sum(len(job.cells) for job in some) for some in (jobs, missing))
        plan = (
            f"{total} cells: {len(grid.runs)} runs x {len(grid.tests)} test sets, {len(self.tasks)} tasks, "
            f"{len(grid.attacks)} attacks; {total - num_missing} are there already"
        )
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would measure {plan}, into {out}"
        for test, about_test in grid.tests:
            records.write(out, about_test)
            for ledger, about_attack in grid.attacks:
                self._illustrate(test, about_test, ledger, about_attack, out)
        for ledger, about_attack in grid.attacks:
            for run in grid.runs:
                matches.count(out, run, ledger, about_attack)
        if missing:
            log.say(f"measuring {plan}")
            spread(
                score,
                missing,
                backend=self.backend,
                what="evaluating",
                unit="cells",
                weight=int,
                total=total,
                done=total - num_missing,
                describe=lambda job: f"{job.run.name} on {job.testset}",
                num_cpus=self.cpus,
            )
        found = [row for job in jobs for cell in job.cells for row in scores.read(storage.join(out, cell.file))]
        print(tabular.plain(grid.compare(found)), end="\n\n")
        return f"{'' if missing else 'nothing to do: '}{total} cells of scores at {out}"

    def _grid(self, out: str) -> Grid:
        """Open everything, and check that it belongs together. Raises ValueError; touches nothing."""
        foreign = [name for name in storage.names(out) if not name.endswith(".json") and name != "about"]
        if foreign:
            raise ValueError(f"{out} exists and is no folder of scores (it holds {foreign[0]!r}): choose another --out")
        runs = [run_folders.read(storage.real(url), out, self.checkpoint) for url in self.runs]
        ledgers = [Ledger.open(url) for url in self.ledger]
        attacks = [_about_attack(ledger, runs, out) for ledger in ledgers]
        for ledger, attack in zip(ledgers, attacks, strict=True):
            checks.lineage(runs, ledger, attack, attacks)
            checks.disjointness(runs, ledger, attack, attacks, self.twins_allowed)
        tests = [testsets.read(url, self.split) for url in self.testsets]
        for test in tests:
            for ledger in ledgers:
                trials.class_number(test, ledger.attack.target)
        classifiers.check(runs, tests, ledgers)
        return Grid(
            runs=tuple(runs),
            tests=tuple((test, _about_testset(test, out)) for test in tests),
            attacks=tuple(zip(ledgers, attacks, strict=True)),
        )

    def _jobs(self, grid: Grid, out: str) -> list[Job]:
        pairs = [(run, test, about) for run in grid.runs for test, about in grid.tests]
        return [
            Job(
                number=number,
                run=run,
                test=test,
                cells=tuple(self._cells(run, about, grid)),
                out=out,
                testset=about.key,
                seed=self.seed,
                cpus=self.cpus,
            )
            for number, (run, test, about) in enumerate(pairs)
        ]

    def _cells(self, run: Run, about: TestSetRecord, grid: Grid) -> Iterator[Cell]:
        for name in self.tasks:
            task = plugins.load(Task.FOLDERS, name, Task)()
            under = (
                [(ledger.attack, record.key) for ledger, record in grid.attacks] if task.under_attack else [(None, "")]
            )
            for attack, key in under:
                identity = {
                    "run": run.key,
                    "weights": run.weights_sha256,
                    "architecture": run.architecture,
                    "testset": [about.key, about.digest],
                    "task": config.to_json(task),
                    "attack": key,
                    "seed": self.seed,
                }
                content = hashlib.sha256(storage.dump_json(identity)).hexdigest()[:12]
                words = [word for word in (run.name, about.name, name, key, content) if word]
                file = storage.file_name([re.sub(r"[^\w.-]+", "_", word) for word in words], ".json")
                yield Cell(file, task, attack, key or None)

    def _illustrate(self, test: TestSet, about: TestSetRecord, ledger: Ledger, attack: AttackRecord, out: str) -> None:
        """What a report shows of an attack; its record comes last."""
        if records.has_examples(out, attack, about) and records.has_attack(out, attack):
            return
        examples = records.draw_examples(test, ledger.attack, lambda sha256: trials.trial_rng(self.seed, sha256))
        records.write_examples(out, attack, about, examples)
        if (trigger := ledger.attack.trigger()) is not None:
            records.write_trigger(out, attack, trigger)
        records.write(out, attack)


def _about_attack(ledger: Ledger, runs: list[Run], out: str) -> AttackRecord:
    lineages: list[Run | Ancestor] = [*runs, *(ancestor for run in runs for ancestor in run.ancestors)]
    sizes = {step.dataset_digest: step.dataset_samples for step in lineages}
    return AttackRecord(
        key=records.attack_key(ledger.attack, ledger.dataset_digest),
        place=records.relative(ledger.url, out),
        attack=config.to_json(ledger.attack),
        target=ledger.attack.target,
        poisons=ledger.rows.num_rows,
        samples=sizes.get(ledger.dataset_digest),
        dataset_digest=ledger.dataset_digest,
        parent_digest=ledger.parent_digest,
        trigger=ledger.attack.trigger() is not None,
        shown=ledger.attack.shown,
    )


def _about_testset(test: TestSet, out: str) -> TestSetRecord:
    return TestSetRecord(
        place=records.relative(test.url, out),
        split=test.split,
        digest=test.digest,
        classes=test.classes,
        templates=test.templates,
        pictures=len(test.pictures),
    )
