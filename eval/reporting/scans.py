"""What scans were worth, as a table."""

from collections.abc import Sequence

from eval.judging.detection import SHARES
from eval.reporting import formatting
from eval.reporting.formatting import percent, within
from eval.store.scans import ScanRecord

HEAD = (
    *("scan", "attack", "score", "AUROC", "AUPRC", "FPR at 95% recall"),
    *(f"found at {100 * share:g}% removed" for share in SHARES),
)
RULE = ("---", "---", "---", *["---:"] * (3 + len(SHARES)))
AUTO = ("scan", "attack", "poisons among pairs", "auto removes", "poisons of these", "precision", "poisons left")
EXPLAINED = (
    "Scores are those of scans that knew no ledger. AUROC: the share of (poison, clean pair) in the right order; "
    "AUPRC: average precision; FPR: clean pairs accused where 95% of the poisons are found. In brackets: exact 95% "
    "intervals (Clopper-Pearson)."
)


def markdown(found: Sequence[ScanRecord]) -> str:
    """What `auto` would do, and what every detector finds; the panel first."""
    if not found:
        return ""
    (head, lines), (names, numbers) = tables(found)
    auto, every = formatting.markdown((head, _rule(head), *lines)), formatting.markdown((names, RULE, *numbers))
    return f"\n# What scans found\n\n{auto}\n{every}\n{EXPLAINED}\n"


def tables(found: Sequence[ScanRecord]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """(head, lines) of two tables: what auto would remove, and what every score finds; [] for no scan.

    A scan is called by the name of its folder, or by where it lies if another's has that name too.
    """
    if not found:
        return []
    folders: dict[str, set[str]] = {}
    for record in found:
        folders.setdefault(record.name, set()).add(record.place)
    called = [record.place if len(folders[record.name]) > 1 else record.name for record in found]
    auto = [(name, *_auto(record)) for name, record in zip(called, found, strict=True)]
    every = [(name, *row) for name, record in zip(called, found, strict=True) for row in rows(record)]
    return [(AUTO, auto), (HEAD, every)]


def rows(record: ScanRecord) -> list[tuple[str, ...]]:
    """One a detector: its numbers as text, but for the scan's name."""
    return [
        (
            record.plugin,
            name,
            f"{worth.auroc:.3f}",
            f"{worth.average_precision:.3f}",
            percent(worth.false_positive_rate),
            *(percent(worth.recall[f"{share:g}"]) for share in SHARES),
        )
        for name, worth in sorted(record.worth.items(), key=lambda item: (item[0] != "panel", item[0]))
    ]


def _auto(record: ScanRecord) -> tuple[str, ...]:
    precision = "-"
    if record.low is not None and record.high is not None:
        precision = within(record.hits / record.proposed, record.low, record.high)
    return (
        record.plugin,
        f"{record.poisons:,} of {record.pairs:,}",
        f"{record.proposed:,}",
        f"{record.hits:,}",
        precision,
        f"{record.poisons - record.hits:,}",
    )


def _rule(head: tuple[str, ...]) -> tuple[str, ...]:
    return ("---", "---", *["---:"] * (len(head) - 2))
