"""Scores and run folders -> a report. The same scores and runs give the same bytes, wherever they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from defense.scanning import folder as folders
from defense.scanning.folder import ScanFolder
from eval.judging.roles import Comparison, compare
from eval.reporting import page, preview, provenance, suspicion, tabular
from eval.reporting import scans as tables
from eval.reporting.page import Material
from eval.store import answers, current, predictions, records, scans
from eval.store.answers import Asked
from infra import config, storage

SCAN = "scan.html"
FILES = ("report.html", "tables.md", "scores.csv")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What to report on, and where to."""

    out: str
    """Folder for report.html, tables.md and scores.csv; an earlier report in it is replaced."""
    scores: str | None = None
    """Folder of the scores; it names the runs, which must still be where they were."""
    scan: str | None = None
    """Folder of a scan, instead: a page of what was found, for who decides what to remove."""
    preview: str | None = None
    """Poisoned pairs to include: the folder that preview made."""
    dry_run: bool = False
    """Print the resolved configuration; touch nothing."""

    def __post_init__(self) -> None:
        if (self.scores is None) == (self.scan is None):
            raise ValueError(f"give --scores or --scan, {'one of them' if self.scan is None else 'not both'}")
        if self.scan is not None and self.preview is not None:
            raise ValueError("--preview belongs to a report on --scores, not to one on --scan")

    def run(self) -> str:
        """Prints the verdict. Returns the entry's last line."""
        return self._on_scan(self.scan) if self.scan is not None else self._on_scores(self.scores or "")

    def _on_scan(self, url: str) -> str:
        scan, place = ScanFolder.open(url), storage.join(storage.absolute(self.out), SCAN)
        text = suspicion.render(scan).encode()
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would report on the scan {scan.url} to {place}"
        print(folders.told(scan.about["clusters"]))
        same = storage.exists(place) and storage.read(place) == text
        if not same:
            storage.write(place, text)
        return f"{'nothing to do: ' if same else ''}report on a scan at {place}"

    def _on_scores(self, scores: str) -> str:
        folder, out = storage.absolute(scores), storage.absolute(self.out)
        kept, runs = current.read(folder)
        used = {(score.testset, score.attack) for score in kept}
        testsets = [record for record in records.read_testsets(folder) if record.key in {key for key, _ in used}]
        attacks = [record for record in records.read_attacks(folder) if record.key in {key for _, key in used}]
        comparisons = compare(kept, runs, testsets, attacks)
        if not comparisons:
            raise ValueError(f"{folder} holds numbers of training pairs alone: run evaluate with other --tasks too")
        _check(comparisons)
        assessed = scans.read(folder)
        material = Material(
            comparisons=comparisons,
            examples={
                (attack.key, testset.digest): records.read_examples(folder, attack, testset)
                for attack in attacks
                for testset in testsets
            },
            triggers={attack.key: data for attack in attacks if (data := records.read_trigger(folder, attack))},
            preview=preview.read(self.preview) if self.preview is not None else [],
            scans=assessed,
            facts=provenance.facts(folder, kept, runs, testsets, attacks),
        )
        material = replace(material, answers=_answers(folder, material), maps=_maps(folder))
        made = (
            page.render(material),
            tabular.markdown(comparisons) + tables.markdown(assessed),
            tabular.as_csv(kept, comparisons),
        )
        if self.dry_run:
            print(storage.dump_json(config.to_json(self)).decode(), end="")
            return f"dry run: would report {len(kept)} scores of {len(runs)} runs to {storage.join(out, FILES[0])}"
        for verdict in tabular.verdicts(comparisons):
            print(verdict)
        same = True
        for name, text in zip(FILES, made, strict=True):
            url = storage.join(out, name)
            if not (storage.exists(url) and storage.read(url) == text.encode()):
                storage.write(url, text.encode())
                same = False
        return f"{'nothing to do: ' if same else ''}report on {len(runs)} runs at {storage.join(out, FILES[0])}"


def _answers(folder: str, material: Material) -> dict[Asked, dict[str, str]]:
    """What the runs that are shown answered to the examples."""
    asked: dict[Asked, set[str]] = {}
    for one in page.judged_of(material.comparisons):
        attack, testset = one.comparison.attack, one.comparison.testset
        shown = material.examples.get((attack.key, testset.digest), ()) if attack else ()
        names = {example.sha256 for example in shown if example.sha256}
        for row in page.answering(one):
            for key in (None, attack.key if attack else None):
                asked.setdefault(Asked.of(row.run, testset.key, key), set()).update(names)
    return answers.read(folder, asked)


def _maps(folder: str) -> dict[Asked, tuple[pa.Table, int | None]]:
    found = {}
    for table, about in predictions.maps(folder).values():
        run = records.relative(records.resolve(about["run"], folder), folder)
        classes = about["classes"]
        number = classes.index(about["target"]) if about["target"] in classes else None
        found[Asked(run, about["checkpoint"], about["testset"], about["attack"])] = (table, number)
    return found


def _check(comparisons: Sequence[Comparison]) -> None:
    for comparison in comparisons:
        for row in comparison.rows if comparison.zero_shot else ():
            if missing := comparison.missing(row):
                under = f" under {comparison.attack.key}" if comparison.attack else ""
                raise ValueError(
                    f"{row.run.url} has no {' and no '.join(missing)} on {comparison.testset.key}{under}: "
                    "evaluate all runs with the same --testsets, --ledger and --tasks, into the same --out"
                )
