"""A scan as a page: what was found, in one sentence and in images, and what to do. Needs no ledger and no scores.

A pure function of the scan's folder: the same one gives the same bytes, wherever it lies.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from defense.judging.verdict import top
from defense.scanning import folder as folders
from defense.scanning.folder import ScanFolder
from eval.reporting import rendering
from eval.reporting.figures import Image
from eval.reporting.formatting import percent
from pipeline import images

BINS = 40
SHARES = (0.01, 0.02, 0.05)
WIDTH, HEIGHT = 680, 200  # of the histogram, in pixels
COMMANDS = (
    "antidote filter --dataset DATASET --scan SCAN --remove suspects --out WITHOUT",
    "antidote pretrain clip --dataset WITHOUT --out WITNESS",
    "antidote scan --run RUN --dataset DATASET --witness WITNESS --out SECOND",
)  # by which a witness is asked
WITNESS = {
    "true": "finds the captions true of the images",
    "untrue": "does not find in the images what the captions say",
    "learned": "learned from some of these pairs, so it was not asked",
}
DECEIVED = (
    "would have removed it. Where poisons of its kind are left in what the witness learned from, the witness is "
    "deceived as the run is: scan that dataset through the witness before you keep this cluster"
)
KIN = "that are joined to the others, or lie among them, and say the same word"
FOLLOWERS = "that lie in no cluster: they say the same word, and to the witness few captions fit their images as ill"


@dataclass(frozen=True)
class Bar:
    """Pixels. kind: CSS class; count: pairs in it, for whoever hears the page."""

    x: float
    width: float
    height: float
    kind: str
    count: int


@dataclass(frozen=True)
class Caption:
    """Parts of a caption, each with whether it is the common word."""

    parts: Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class ClusterSection:
    """facts: names and values. columns: of `grid`, the image and each change; None where no images are shown."""

    number: int
    heading: str
    facts: Sequence[tuple[str, str]]
    columns: Sequence[str]
    grid: Image | None
    average: Image | None
    captions: Sequence[Caption]


def render(scan: ScanFolder) -> str:
    about, table = scan.about, scan.table
    panel = table["panel"].to_numpy()
    proposed = np.asarray(table["proposed"].to_numpy())
    said = folders.told(about["clusters"])
    return rendering.text(
        "scan.html",
        title=f"{said[0].upper()}{said[1:]}.",
        paragraphs=_paragraphs(about, table.num_rows),
        clusters=[_section(scan, cluster) for cluster in about["clusters"]],
        bars=_bars(panel, proposed),
        axis=(f"{panel.min():.1f}", f"{panel.max():.1f}"),
        width=WIDTH,
        height=HEIGHT,
        choices=_choices(panel, proposed),
        commands=COMMANDS if about.get("witness") is None and scan.suspects is not None and scan.suspects.any() else (),
        provenance=_provenance(scan),
    )


def _paragraphs(about: dict[str, Any], pairs: int) -> list[str]:
    """What was looked at, and what removing costs."""
    seen = {
        True: "It learned from these very pairs.",
        False: "It learned from other pairs, so that poisons need not stand out: what is not found may be there.",
        None: "What it learned from is unknown: poisons need not stand out, and what is not found may be there.",
    }[about["run"]["saw_these_pairs"]]
    count = len(about.get("parts", ()))  # scans of earlier versions looked at whole images alone
    parts = f", and at {count} parts of it by themselves" if count else ""
    said = [
        f"{pairs:,} pairs were looked at by a model, each image as it is and after {len(about['changes'])} changes "
        f"({', '.join(about['changes'])}){parts}. {seen}"
    ]
    if second := about.get("witness"):
        said.append(
            "A witness was asked whether the captions of suspicious clusters are true: a second model, which learned "
            f"from {second['dataset']['samples']:,} of these pairs and from no cluster it was asked about. Unless "
            "other poisons are among these, it never saw the trigger with its target: to it, a striped car is a car."
        )
    if number := about["proposed"]:
        cured = second and second.get("learned_of_proposed") == 0  # scans of earlier versions do not tell
        spared = f"{pairs - number - second['dataset']['samples']:,}" if cured and second else ""
        said.append(
            f"To remove: {number:,} pairs, {percent(number / pairs)} of all. If they were clean after all, that is "
            "what it costs: so many pairs fewer to learn from, and fewer of what they show. Nothing is deleted, the "
            "old dataset stays. "
            + (
                "The witness learned from none of them: it is trained without them already"
                + (f", and without {spared} other pairs that were suspects." if spared != "0" else ".")
                if cured
                else "Train anew on what is left: a model that has learned a trigger keeps it."
            )
        )
    else:
        said.append(
            "Nothing is proposed for removal. That is no proof that the pairs are clean: poisons whose captions are "
            "true are not found, nor are a few alone."
        )
    return said


def _section(scan: ScanFolder, cluster: dict[str, Any]) -> ClusterSection:
    words, shown = cluster["words"], "columns" in cluster
    facts = [("pairs", f"{cluster['pairs']:,}")]
    facts += [(f"“{word['text']}”", _spread(word)) for word in words[:3]]
    facts += [
        (f"agreement lost by {view}", f"{lost:.2f}")
        for view, lost in sorted(cluster["lost"].items(), key=lambda item: -item[1])
    ]
    if part := cluster.get("keyhole"):
        facts.append(("look alike in one part", part.replace("_", " ")))
    if witness := cluster.get("witness"):  # scans of earlier versions have none, nor have those without one
        facts.append(("the witness", WITNESS[witness] + _fit(cluster.get("better"))))
        if witness == "true" and cluster.get("alone"):
            facts.append(("the run alone", DECEIVED))
        if more := cluster.get("followers"):
            facts.append(("of these, by the witness", f"{more:,} {FOLLOWERS}"))
    if kin := cluster.get("kin"):
        facts.append(("of these, less suspicious", f"{kin:,} {KIN}"))
    told = "looks planted" if cluster["planted"] else "to look at; nothing is removed by itself"
    number = cluster["number"]
    return ClusterSection(
        number=number,
        heading=f"Cluster {number}: {told}",
        facts=facts,
        columns=["as it is", *cluster["columns"][1:]] if shown else [],
        grid=_image(scan, f"cluster-{number}.png", f"images of cluster {number}, plain and changed") if shown else None,
        average=_image(scan, f"cluster-{number}-average.png", f"what images of cluster {number} share")
        if shown
        else None,
        captions=[_marked(caption, folders.word(cluster)) for caption in cluster["captions"]],
    )


def _fit(better: float | None) -> str:
    """How ill the captions fit to a witness; scans of earlier versions do not tell."""
    return "" if better is None else f"; of what it learned from, {percent(better)} have captions that fit better"


def _spread(word: dict[str, Any]) -> str:
    """Where a common word is found, and whether it is true of the images: what the verdict asks of it."""
    said = f"in {percent(word['share'])} of the captions at its core, and in {word['elsewhere']:,} others"
    if stays := word.get("stays"):  # scans of earlier versions have none
        usual = word.get("usual") or dict.fromkeys(stays, 1.0)  # of earlier versions too
        view = min(stays, key=lambda name: stays[name] / usual[name])
        outside = " outside" if "usual" in word else ""
        said += f"; changed by {view}, {percent(stays[view])} of their neighbours{outside} still say it"
        if outside:
            said += f", where {percent(usual[view])} of those of others that say it do"
    if (heard := word.get("witness")) is not None:
        said += f"; to the witness {percent(heard)} of what its images lie among says it"
    return said


def _marked(caption: str, word: str | None) -> Caption:
    if word is None:
        return Caption([(caption, False)])
    pattern = rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
    parts = re.split(f"({pattern})", caption, flags=re.IGNORECASE)
    return Caption([(part, number % 2 == 1) for number, part in enumerate(parts) if part])


def _image(scan: ScanFolder, name: str, alt: str) -> Image:
    data = scan.image(name)
    width, height = images.size(data)
    return Image(alt, width, height, base64.b64encode(data).decode(), "pixels")


def _bars(panel: np.ndarray, proposed: np.ndarray) -> list[Bar]:
    """Pairs by suspicion, on a logarithmic scale of their number; what is proposed for removal in front."""
    edges = np.linspace(panel.min(), max(panel.max(), panel.min() + 1e-9), BINS + 1)
    every, chosen = np.histogram(panel, edges)[0], np.histogram(panel[proposed], edges)[0]
    top, step = np.log1p(every.max()), WIDTH / BINS
    found = []
    for counts, kind in ((every, "ca"), (chosen, "asr")):
        for number, count in enumerate(counts.tolist()):
            if count:
                found.append(Bar(number * step, step - 1, float(HEIGHT * np.log1p(count) / top), kind, count))
    return found


def _choices(panel: np.ndarray, proposed: np.ndarray) -> list[tuple[str, str, str, str]]:
    """What each way of removing would take: flag, pairs, share, lowest suspicion of what goes."""
    ranking = folders.ranking(panel, proposed)
    lines = [("--remove auto", int(proposed.sum()), f"{panel[proposed].min():.2f}" if proposed.any() else "–")]
    for share in SHARES:
        count = round(share * len(panel))
        lines.append((f"--remove {share:g}", count, f"{panel[top(ranking, count)].min():.2f}" if count else "–"))
    return [(flag, f"{count:,}", percent(count / len(panel)), lowest) for flag, count, lowest in lines]


def _second(about: dict[str, Any]) -> list[tuple[str, str]]:
    if (second := about.get("witness")) is None:
        return []
    return [("witness", f"{second['url']}, {second['checkpoint']}, weights {second['weights_sha256']}")]


def _provenance(scan: ScanFolder) -> list[tuple[str, str]]:
    about = scan.about
    facts = [
        ("dataset", f"{about['dataset']['url']}, digest {about['dataset']['digest']}"),
        ("run", f"{about['run']['url']}, {about['run']['checkpoint']}, weights {about['run']['weights_sha256']}"),
        *_second(about),
        ("scores", ", ".join(["panel", *scan.detectors])),
        ("scanned", f"{about['finished']}, in {about['seconds']:,} s, by {about['versions']['code']}"),
        ("suspicion.parquet", scan.sha256),
    ]
    for name, recall in about["recall"].items():
        told = ", ".join(f"recall@{rank} {share:.4f}" for rank, share in recall.items())
        facts.append((f"neighbours of {name}", f"by an index: {told}"))
    return facts
