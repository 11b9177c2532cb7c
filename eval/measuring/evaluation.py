"""The grid behind eval/evaluate.py: every run on every test set, every task, under every attack where a task needs one.

One job is one run on one test set, so that its embeddings are made once; one immutable file is one cell of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.measuring import about, checks, classifiers, matches, pairs, plan, trials
from eval.measuring.pairs import Drawn
from eval.measuring.plan import Grid
from eval.measuring.scoring import score
from eval.reporting import tabular
from eval.store import predictions, records, scores
from eval.store import runs as run_folders
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Run
from eval.task import Task
from infra import config, log, plugins, storage
from infra.spread import Backend, spread
from pipeline import captioned, testsets
from pipeline.captioned import Captioned
from pipeline.testsets import TestSet
from poison.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to measure, and where to put the scores."""

    runs: tuple[str, ...]
    """Finished runs. Include one trained without poison: it gives the floor."""
    testsets: tuple[str, ...]
    """Test sets in CLIP_benchmark's WebDataset layout, of classes or with captions; a task takes those of its kind."""
    out: str
    """Folder of the scores; more grids may be added to it."""
    ledger: tuple[str, ...] = ()
    """Ledgers of the attacks to measure."""
    tasks: tuple[str, ...] = ("zeroshot", "attack_success")
    split: str = "test"
    """Split of the test sets."""
    probe_data: str | None = None
    """Clean labelled images of the same classes, in the same layout, that linear_probe and knn learn from; without it
    those beside each test set."""
    probe_split: str = "train"
    """Which split of them."""
    recipe: Literal["regularised", "papers"] = "regularised"
    """Of linear_probe: an L2 penalty chosen on held-out training images, or CleanCLIP's AdamW on raw embeddings."""
    checkpoint: str = "latest"
    """Which checkpoint of every run, e.g. step-0001234; `all`: every one that was kept."""
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
        chosen = [(name, plugins.load(Task.FOLDERS, name, Task)) for name in self.tasks]
        needy = [name for name, task in chosen if not task.clean]
        if needy and not self.ledger:
            raise ValueError(f"the task {needy[0]} needs the ledger of an attack: give --ledger, or other --tasks")
        if self.recipe != "regularised" and "linear_probe" not in self.tasks:
            raise ValueError(f"--recipe {self.recipe} is one of the task linear_probe: add it to --tasks")
        if self.probe_data is not None and not any(task.learns for _, task in chosen):
            raise ValueError("--probe-data is for linear_probe and knn: add one to --tasks, or leave it out")

    def run(self) -> str:
        """Measure what has no score yet. Returns the entry's last line."""
        out = storage.absolute(self.out)
        grid = self._grid(out)
        jobs = plan.jobs(grid, self._tasks(), out, self.seed, self.cpus)
        there = set(storage.names(out))
        missing = [job for job in (job.without(there) for job in jobs) if job.cells]
        if reading := [name for name, task in zip(self.tasks, self._tasks(), strict=True) if task.reads]:
            for run in (run for run in grid.runs if run.classes):
                log.say(f"{run.url} is a classifier, which reads no text: {' and '.join(reading)} leave it out")
        total, num_missing = (sum(len(job.cells) for job in some) for some in (jobs, missing))
        told = (
            f"{total} cells: {self._told(grid)} x {len(grid.tests)} test sets, {len(self.tasks)} tasks, "
            f"{len(grid.attacks)} attacks; {total - num_missing} are there already"
        )
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would measure {told}, into {out}"
        for test, about_test in grid.tests:
            records.write(out, about_test)
            for ledger, about_attack in grid.attacks:
                self._illustrate(test, about_test, ledger, about_attack, out)
        for ledger, about_attack in grid.attacks:
            for run in grid.runs:
                matches.count(out, run, ledger, about_attack)
        if missing:
            log.say(f"measuring {told}")
            spread(
                score,
                missing,
                backend=self.backend,
                what="evaluating",
                unit="cells",
                weight=int,
                total=total,
                done=total - num_missing,
                describe=lambda job: f"{job.run.name} on {job.testset or 'pairs that it learned from'}",
                num_cpus=self.cpus,
            )
        found = [row for job in jobs for cell in job.cells for row in scores.read(storage.join(out, cell.file))]
        print(tabular.plain(grid.compare(found)), end="\n\n")
        return f"{'' if missing else 'nothing to do: '}{total} cells of scores at {out}"

    def _grid(self, out: str) -> Grid:
        """Open everything, and check that it belongs together. Raises ValueError; touches nothing."""
        known = ("about", predictions.FOLDER)
        foreign = [name for name in storage.names(out) if not name.endswith(".json") and name not in known]
        if foreign:
            raise ValueError(f"{out} exists and is no folder of scores (it holds {foreign[0]!r}): choose another --out")
        runs = [run for url in self.runs for run in run_folders.read_all(storage.real(url), out, self.checkpoint)]
        ledgers = [Ledger.open(url) for url in self.ledger]
        sizes = about.sizes(runs)
        attacks = [about.attack(ledger, sizes, out) for ledger in ledgers]
        for ledger, attack in zip(ledgers, attacks, strict=True):
            checks.lineage(runs, ledger, attack, attacks)
            checks.disjointness(runs, ledger, attack, attacks, self.twins_allowed)
        tasks = self._tasks()
        kinds = {url: "captions" if testsets.kind_of(url) == testsets.CAPTIONED else "labels" for url in self.testsets}
        for task in tasks:
            if task.on != "pairs" and task.on not in kinds.values():
                asked = "with captions (several an image)" if task.on == "captions" else "of classes"
                raise ValueError(f"the task {task.called} needs a test set {asked}, and none of --testsets is one")
        tests = [
            captioned.read(url, self.split) if kind == "captions" else testsets.read(url, self.split)
            for url, kind in kinds.items()
        ]
        of_classes = [test for test in tests if isinstance(test, TestSet)]
        for test in of_classes:
            for ledger in ledgers:
                trials.class_number(test, ledger.attack.target)
        classifiers.check(runs, of_classes, ledgers)
        learning = any(task.learns for task in tasks)
        return Grid(
            runs=tuple(runs),
            tests=tuple((test, about.testset(test, out)) for test in tests),
            attacks=tuple(zip(ledgers, attacks, strict=True)),
            train={test.url: self._train(test, ledgers) for test in of_classes} if learning else {},
            pairs=self._pairs(runs, ledgers, attacks),
        )

    def _tasks(self) -> list[Task]:
        made = []
        for name in self.tasks:
            knobs = {"recipe": self.recipe} if name == "linear_probe" else {}
            made.append(plugins.load(Task.FOLDERS, name, Task)(**knobs))
        return made

    def _train(self, test: TestSet, ledgers: Sequence[Ledger]) -> TestSet:
        """Raises ValueError unless it has the test set's classes and none of an attack's images."""
        url = self.probe_data or test.url
        if not testsets.is_complete(url, self.probe_split):
            raise ValueError(
                f"linear_probe and knn learn from labelled images, and {url} has no complete split "
                f"{self.probe_split!r}: give --probe-data and --probe-split, or other --tasks"
            )
        train = testsets.read(url, self.probe_split)
        checks.probe(train, test, ledgers)
        return train

    def _pairs(self, runs: list[Run], ledgers: list[Ledger], attacks: list[AttackRecord]) -> dict[str, Drawn]:
        """By attack, what tasks on pairs are shown; empty without such a task."""
        if not any(task.on == "pairs" for task in self._tasks()):
            return {}
        return {
            attack.key: pairs.draw(pairs.learned(runs, ledger, attack, attacks), ledger, self.seed)
            for ledger, attack in zip(ledgers, attacks, strict=True)
        }

    def _told(self, grid: Grid) -> str:
        if self.checkpoint != "all":
            return f"{len(grid.runs)} runs"
        return f"{len(grid.runs)} checkpoints of {len(self.runs)} runs"

    def _illustrate(
        self, test: TestSet | Captioned, record: TestSetRecord, ledger: Ledger, attack: AttackRecord, out: str
    ) -> None:
        """What a report shows of an attack; its record comes last."""
        if isinstance(test, TestSet):
            if records.has_examples(out, attack, record) and records.has_attack(out, attack):
                return
            examples = records.draw_examples(test, ledger.attack, lambda sha256: trials.trial_rng(self.seed, sha256))
            records.write_examples(out, attack, record, examples)
        about.tell(ledger, attack, out)
