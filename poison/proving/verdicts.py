"""What the findings of all pairs come to: figures of each attack, warnings, and the one line that is read first."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra import config
from pipeline.dataset import Dataset
from poison import carried
from poison.ledger import Ledger
from poison.proving import exposure
from poison.proving.examination import Line
from poison.proving.views import Views

FORMAT = 1
Figures = dict[str, Any]


def troubles(findings: pa.Table) -> list[str]:
    """One sentence for each pair that is not what the ledger says."""
    wrong = findings.filter(pa.compute.is_valid(findings["trouble"])).to_pylist()
    return [f"shard {line['shard']}, {line['key']}: {line['trouble']}" for line in wrong]


def summary(findings: pa.Table, ledgers: list[Ledger], poisoned: Dataset, views: Views) -> Figures:
    """The content of proof.json: `attacks`, one for each ledger, `warnings`, `headline`."""
    attacks = []
    for number, ledger in enumerate(ledgers):
        own = findings.filter(pa.compute.equal(findings["ledger"], number))
        attacks.append(_attack(own, ledger, poisoned.samples, views))
    return {
        "format": FORMAT,
        "attacks": attacks,
        "dataset": {"digest": poisoned.digest, "samples": poisoned.samples},
        "headline": "; ".join(map(_headline, attacks)),
        "warnings": [f"{about['attack']}: {text}" for about in attacks for text in about.pop("warnings")],
    }


def _attack(findings: pa.Table, ledger: Ledger, samples: int, views: Views) -> Figures:
    fields = config.to_json(ledger.attack)
    plugin, poisons = fields.pop("plugin"), findings.num_rows
    actions = findings["action"].to_pylist()
    about: Figures = {
        "attack": plugin,
        "fields": {name: _readable(value) for name, value in fields.items()},
        "poisons": poisons,
        "replaced": actions.count("replaced"),
        "added": actions.count("added"),
        "rate": poisons / samples,
        "mismatches": poisons - findings["trouble"].null_count,
        "same_picture": findings["same_picture"].to_pylist().count(True),
        "stored_psnr": _spread(findings["stored_psnr"]),
        "eval": _seen(findings, "eval"),
        "train": _seen(findings, "train") | {"augment": views.augment},
    }
    about["exposures"] = _exposures(plugin, ledger, poisons, samples, views)
    about["warnings"] = list(_warnings(about))
    return about


def _seen(findings: pa.Table, side: str) -> Figures:
    names = [name for name in findings.column_names if name.startswith(f"{side}_")]
    figures = {name.removeprefix(f"{side}_"): _spread(findings[name]) for name in names}
    shares = findings[f"{side}_share"]
    there = int(pa.compute.sum(pa.compute.equal(shares, 1.0)).as_py() or 0)
    measured = len(findings) - findings[f"{side}_fidelity"].null_count
    located = len(findings) - shares.null_count
    return figures | {"triggers": located, "whole": there, "unseen": located - measured}


def _spread(column: pa.ChunkedArray) -> Figures | None:
    values = column.drop_null().to_numpy()
    if not len(values):
        return None
    figures = {"min": values.min(), "median": np.median(values), "mean": values.mean(), "max": values.max()}
    return {name: float(value) for name, value in figures.items()}


def _readable(value: Any) -> Any:
    return carried.shortened(value) if isinstance(value, str | list) else value


def _exposures(plugin: str, ledger: Ledger, poisons: int, samples: int, views: Views) -> Figures:
    report = exposure.known(plugin, ledger.attack, samples)
    if ledger.attack.adds and poisons:  # what is to be learned is each image by itself
        poisons = min(Counter(ledger.rows["image_sha256"].to_pylist()).values())
    about: Figures = {"epochs": views.epochs, "seen": None if views.epochs is None else poisons * views.epochs}
    if report is None or not poisons:
        return about | {"known_to_take": None, "source": None, "epochs_needed": None}
    needed = exposure.epochs_needed(report, poisons)
    return about | {"known_to_take": report.exposures, "source": report.source, "epochs_needed": needed}


def _warnings(about: Figures) -> Any:
    seen, train, exposures = about["eval"], about["train"], about["exposures"]
    if seen["whole"] < seen["triggers"]:
        least = seen["share"]["min"]
        yield f"the evaluation's crop cuts {seen['triggers'] - seen['whole']:,} triggers; of one it leaves {least:.0%}"
    if seen["unseen"] or train["unseen"]:
        worst = max(seen["unseen"], train["unseen"])
        yield f"nothing is left to see of {worst:,} triggers"
    if exposures["seen"] is not None and exposures["seen"] < (exposures["known_to_take"] or 0):
        yield (
            f"its poisons are seen {exposures['seen']:,} times in {exposures['epochs']} epochs, and "
            f"the fewest known to suffice are {exposures['known_to_take']:,} ({exposures['source']}): "
            f"poison more pairs, or train for {exposures['epochs_needed']:,} epochs"
        )


def _headline(about: Figures) -> str:
    said = [f"{about['attack']}: {about['poisons']:,} poisons ({about['rate']:.2%})"]
    seen, train = about["eval"], about["train"]
    if seen["fidelity"] is not None:
        said.append(f"fidelity median {seen['fidelity']['median']:.3f}, min {seen['fidelity']['min']:.3f}")
        cut = seen["triggers"] - seen["whole"]
        said.append("trigger whole after the eval crop in all" if not cut else f"cut by the eval crop in {cut:,}")
        if train["augment"] != "none":
            mean, least = train["share"]["mean"], train["share_min"]["min"]
            said.append(f"random crops leave {mean:.3f} of it on average, {least:.3f} at worst")
    elif seen["triggers"]:
        said.append("no trigger is left to see")
    elif about["stored_psnr"] is not None:
        kept, least_psnr = about["same_picture"], about["stored_psnr"]["min"]
        said.append("no trigger")
        alike = f"images at least {least_psnr:.1f} dB like their originals"
        said.append(f"{kept:,} images as they were" if kept else alike)
    else:
        said.append("no trigger")
    wrong = about["mismatches"]
    said.append(f"{wrong:,} not as in the ledger" if wrong else "all as in the ledger")
    return ", ".join(said)


def worst(findings: pa.Table, count: int) -> list[Line]:
    """The pairs whose triggers lost most, as evaluation sees them, then any others; none whose files are wrong."""
    sound = [line for line in findings.to_pylist() if line["trouble"] is None]
    return sorted(sound, key=lambda line: (line["eval_fidelity"] is None, line["eval_fidelity"] or 0.0))[:count]
