"""Scores and run folders -> a report. The same scores and runs give the same bytes, wherever they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.judging.roles import Comparison, compare
from eval.measuring import matches
from eval.reporting import page, tabular
from eval.store import records, scores
from eval.store import runs as run_folders
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Run
from eval.store.scores import Score
from infra import config, log, storage
from poison.sheets import layout, previews
from poison.sheets.layout import Shown

FILES = ("report.html", "tables.md", "scores.csv")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What to report on, and where to."""

    scores: str
    """Folder of the scores; it names the runs, which must still be where they were."""
    out: str
    """Folder for report.html, tables.md and scores.csv; an earlier report in it is replaced."""
    preview: str | None = None
    """Poisoned pairs to include: the folder that preview made."""
    dry_run: bool = False
    """Print the resolved configuration; touch nothing."""

    def run(self) -> str:
        """Returns the entry's last line."""
        folder, out = storage.absolute(self.scores), storage.absolute(self.out)
        kept, runs = current(folder)
        used = {(score.testset, score.attack) for score in kept}
        testsets = [record for record in records.read_testsets(folder) if record.key in {key for key, _ in used}]
        attacks = [record for record in records.read_attacks(folder) if record.key in {key for _, key in used}]
        comparisons = compare(kept, runs, testsets, attacks)
        _check(comparisons)
        material = page.Material(
            comparisons=comparisons,
            examples={
                (attack.key, testset.digest): records.read_examples(folder, attack, testset)
                for attack in attacks
                for testset in testsets
            },
            triggers={attack.key: data for attack in attacks if (data := records.read_trigger(folder, attack))},
            sheet=_sheet(self.preview),
            facts=facts(folder, kept, runs, testsets, attacks),
        )
        made = (page.render(material), tabular.markdown(comparisons), tabular.as_csv(kept, comparisons))
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would report {len(kept)} scores of {len(runs)} runs to {storage.join(out, FILES[0])}"
        same = True
        for name, text in zip(FILES, made, strict=True):
            url = storage.join(out, name)
            if not (storage.exists(url) and storage.read(url) == text.encode()):
                storage.write(url, text.encode())
                same = False
        return f"{'nothing to do: ' if same else ''}report on {len(runs)} runs at {storage.join(out, FILES[0])}"


def current(folder: str) -> tuple[list[Score], list[Run]]:
    """The scores of a folder, of the weights that their runs have now, and those runs.

    Raises ValueError where there are none, or none of the present weights of some run.
    """
    found = scores.read_all(folder)
    if not found:
        raise ValueError(f"no scores at {folder}: run evaluate first")
    runs = _runs(found, folder)
    places = {place: records.place(records.resolve(place, folder), folder) for place in {one.run for one in found}}
    found = [replace(score, run=places[score.run]) for score in found]  # whichever spelling it was measured by
    versions = {(run.place, run.version) for run in runs}
    kept = [score for score in found if (score.run, score.checkpoint) in versions]
    for run in runs:
        if not any(score.run == run.place for score in kept):
            raise ValueError(f"no scores of the weights that {run.url} has now: run evaluate again")
    if len(kept) < len(found):
        log.warn(f"{len(found) - len(kept)} scores are of weights that their runs no longer have; they are left out")
    return kept, runs


def _runs(found: Sequence[Score], folder: str) -> list[Run]:
    """The runs that scores name, at the checkpoints that were scored; each checkpoint as it is now."""
    runs: dict[tuple[str, str], Run] = {}
    for place, checkpoint in sorted({(score.run, score.checkpoint.partition("@")[0]) for score in found}):
        try:
            run = run_folders.read(records.resolve(place, folder), folder, checkpoint)
            runs[run.place, checkpoint] = run
        except ValueError as error:
            raise ValueError(
                f"{error}; scores at {folder} are of it: "
                f'bring it back, or remove those files, in which "run" is {place!r}'
            ) from error
    return run_folders.named_apart(list(runs.values()))


def _check(comparisons: Sequence[Comparison]) -> None:
    for comparison in comparisons:
        for row in comparison.rows:
            missing = [
                metric
                for metric in (("accuracy", "attack_success") if comparison.attack else ("accuracy",))
                if row.get(metric) is None
            ]
            if missing:
                under = f" under {comparison.attack.key}" if comparison.attack else ""
                raise ValueError(
                    f"{row.run.url} has no {' and no '.join(missing)} on {comparison.testset.key}{under}: "
                    "evaluate all runs with the same --testsets, --ledger and --tasks, into the same --out"
                )


def _sheet(preview: str | None) -> list[Shown] | None:
    """The pairs of a preview's folder, small enough for a page."""
    if preview is None:
        return None
    previews.refuse_image("--preview", preview)
    return [layout.shrunk(pair) for pair in previews.read(storage.absolute(preview))]


def facts(
    folder: str,
    found: Sequence[Score],
    runs: Sequence[Run],
    testsets: Sequence[TestSetRecord],
    attacks: Sequence[AttackRecord],
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Provenance: for each run, attack, test set, and the scores themselves, names and values."""
    parts = [(f"Run {run.name}", [*run_folders.facts(run), *matches.facts(folder, run, attacks)]) for run in runs]
    for attack in attacks:
        parts.append(
            (
                f"Attack {attack.key}",
                [
                    ("attack", storage.dump_json(attack.told).decode().replace("\n", " ").replace("  ", "")),
                    ("ledger", attack.place),
                    ("poisoned pairs", f"{attack.poisons:,}" + (f" of {attack.samples:,}" if attack.samples else "")),
                    ("poisoned dataset", attack.dataset_digest),
                    ("clean dataset", attack.parent_digest),
                ],
            )
        )
    for testset in testsets:
        parts.append(
            (
                f"Test set {testset.name}",
                [
                    ("folder", f"{testset.place}, split {testset.split}"),
                    ("digest", testset.digest),
                    ("pictures", f"{testset.pictures:,} of {len(testset.classes)} classes"),
                    ("prompts", f"{len(testset.templates)} templates, e.g. {testset.templates[0]}"),
                ],
            )
        )
    seeds = sorted({score.seed for score in found})
    versions = sorted({score.code_version for score in found})
    parts.append(("Scores", [("evaluation seed", ", ".join(map(str, seeds))), ("code", ", ".join(versions))]))
    return parts
