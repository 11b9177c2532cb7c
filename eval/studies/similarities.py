"""How near images and captions lie, of clean and of poisoned pairs, by the run that looks at them."""

from eval.reporting import formatting
from eval.reporting.formatting import percent
from eval.studies.study import Row, Study
from eval.studies.tables import called

KINDS = ("clean", "poisoned")
HEAD = ("attack", "run", *(f"{kind} pairs" for kind in KINDS), "gap", "clean accuracy", "attack success")
SAID = "Mean cosine of image and caption; *gap*: of clean pairs less that of poisoned ones.\n"


def markdown(study: Study, figure: str | None = None) -> str:
    """figure: name of the file that shows the same."""
    lines: list[tuple[str, ...]] = [HEAD, ("---",) * len(HEAD)]
    for attack, rows in study.rows.items():
        for row in rows:
            clean, poisoned = (cosine(row, kind) for kind in KINDS)
            gap = "-" if clean is None or poisoned is None else f"{round(clean - poisoned, 2) + 0.0:+.2f}"  # no -0.00
            shown = ("-" if cosine is None else f"{cosine:.2f}" for cosine in (clean, poisoned))
            shares = (percent(share.value) if share else "-" for share in (row.accuracy, row.success))
            lines.append((study.title(attack), row.says or called(row), *shown, gap, *shares))
    shown_by = f"![Cosines and attack success while it learns]({figure})\n\n" if figure else ""
    return f"{shown_by}{SAID}\n{formatting.markdown(lines)}"


def cosine(row: Row, kind: str) -> float | None:
    """Mean over a kind of pairs, and over seeds; None where nothing was measured."""
    share = row.mean("pair_similarity", f"similarity:{kind}", None)
    return share.value if share else None
