"""Where every number of a report came from: of each run, attack, test set and of the scores, names and values."""

import shlex
from collections.abc import Sequence

from eval.reporting.formatting import percent
from eval.store import matches
from eval.store.matches import Partners
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Run
from eval.store.scores import Score
from infra import storage

Facts = Sequence[tuple[str, str]]


def facts(
    folder: str,
    found: Sequence[Score],
    of: Sequence[Run],
    testsets: Sequence[TestSetRecord],
    attacks: Sequence[AttackRecord],
) -> list[tuple[str, Facts]]:
    """Each with its heading. folder: of the scores."""
    parts: list[tuple[str, Facts]] = []
    parts += [(f"Run {run.name}", [*run_facts(run), *_matches(folder, run, attacks)]) for run in of]
    parts += [(f"Attack {attack.key}", _attack(attack)) for attack in attacks]
    parts += [(f"Test set {testset.name}", _testset(testset)) for testset in testsets]
    seeds = sorted({score.seed for score in found})
    versions = sorted({score.code_version for score in found})
    return [*parts, ("Scores", [("evaluation seed", ", ".join(map(str, seeds))), ("code", ", ".join(versions))])]


def run_facts(run: Run) -> Facts:
    """What a reader needs to find and to repeat it."""
    last = run.attempts[-1] if run.attempts else {}
    versions, hardware = last.get("versions", {}), last.get("hardware", {})
    machine = [f"{hardware.get('cores')} cores of {hardware.get('processor')}", *hardware.get("gpus", [])]
    started = (
        [("started from", f"{run.config['pretrained']} ({run.ancestors[0].weights_sha256})")] if run.ancestors else []
    )
    what = "labelled images" if run.classes else "pairs"
    learned = f"{run.dataset} ({run.dataset_samples:,} {what}, digest {run.dataset_digest})"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "code")
    return [
        ("folder", run.key),
        ("weights", f"{run.checkpoint}, sha256 {run.weights_sha256}"),
        ("command", shlex.join(last["command"]) if "command" in last else "not recorded"),
        ("learned from", learned if run.known else "not known"),
        *([("made of", run.source)] if run.source else []),
        *started,
        ("code", str(versions.get("code", "not recorded"))),
        ("ran on", f"processes: {last.get('ranks')}; {'; '.join(machine)}" if hardware else "not recorded"),
        ("with", packages or "not recorded"),
    ]


def _matches(folder: str, run: Run, attacks: Sequence[AttackRecord]) -> Facts:
    """For every attack and kind of match, a line."""
    lines = []
    for attack in attacks:
        for what, found in matches.read(folder, run, attack.key).items():
            said = (f"{kind} pairs: {_partners(found[kind], attack.target)}" for kind in ("poisoned", "clean"))
            lines.append((f"matched with {what} ({attack.plugin})", "; ".join(said)))
    return lines


def _partners(found: Partners, target: str) -> str:
    if not found.number:
        return "none was matched"
    naming, poisoned = (percent(count / found.number) for count in (found.naming, found.poisoned))
    return f'of {found.number:,} matches {naming} name "{target}", {poisoned} are another poisoned pair'


def _attack(attack: AttackRecord) -> Facts:
    return [
        ("attack", storage.dump_json(attack.told).decode().replace("\n", " ").replace("  ", "")),
        ("ledger", attack.place),
        ("poisoned pairs", f"{attack.poisons:,}" + (f" of {attack.samples:,}" if attack.samples else "")),
        ("poisoned dataset", attack.dataset_digest),
        ("clean dataset", attack.parent_digest),
    ]


def _testset(testset: TestSetRecord) -> Facts:
    place = [("folder", f"{testset.place}, split {testset.split}"), ("digest", testset.digest)]
    if not testset.classes:
        return [*place, ("images", f"{testset.pictures:,}, each with captions")]
    return [
        *place,
        ("images", f"{testset.pictures:,} of {len(testset.classes)} classes"),
        ("prompts", f"{len(testset.templates)} templates, e.g. {testset.templates[0]}"),
    ]
