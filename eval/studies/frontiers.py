"""A planned study -> its table, and beside it the figure of its frontiers."""

from dataclasses import dataclass

from eval.studies import panels, study, tables
from infra import storage


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Which plan, and where the result goes."""

    plan: str
    """The table of what is planned (its columns are explained in eval/studies/study.py)."""
    out: str
    """The Markdown file to write; the figure is put beside it, as .svg."""
    at: str | None = None
    """A method at whose clean accuracy the others are compared as well."""
    dry_run: bool = False
    """Print the table; touch nothing."""

    def __post_init__(self) -> None:
        if not self.out.endswith(".md"):
            raise ValueError(f"--out names a Markdown file (.md), not {self.out!r}")

    def run(self) -> str:
        """Returns the entry's last line."""
        planned = study.read(storage.absolute(self.plan))
        if self.at is not None and self.at not in planned.methods:
            raise ValueError(f"--at names a method of the plan ({', '.join(planned.methods)}), not {self.at!r}")
        out = storage.absolute(self.out)
        figure = out.removesuffix(".md") + ".svg"
        made = {out: tables.markdown(planned, figure.rpartition("/")[2], self.at), figure: panels.svg(planned)}
        empty = sum(cell.result is None for cell in planned.cells)
        what = f"table of {len(planned.cells)} planned cells, {empty or 'none'} of them empty,"
        if self.dry_run:
            print(made[out], end="")
            return f"dry run: would write a {what} to {out}"
        if all(storage.exists(url) and storage.read(url) == text.encode() for url, text in made.items()):
            return f"nothing to do: {what} at {out}"
        for url, text in made.items():
            storage.write(url, text.encode())
        return f"{what} at {out}, its figure at {figure}"
