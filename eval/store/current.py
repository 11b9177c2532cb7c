"""A folder of scores beside the runs that it names, as these are now."""

from collections.abc import Sequence
from dataclasses import replace

from eval.store import records, runs, scores
from eval.store.runs import Run
from eval.store.scores import Score
from infra import log


def read(folder: str) -> tuple[list[Score], list[Run]]:
    """The scores of a folder, of the weights that their runs have now, and those runs.

    Raises ValueError where there are none, or none of the present weights of some run.
    """
    found = scores.read_all(folder)
    if not found:
        raise ValueError(f"no scores at {folder}: run evaluate first")
    there = _runs(found, folder)
    keys = {key: records.relative(records.resolve(key, folder), folder) for key in {one.run for one in found}}
    found = [replace(score, run=keys[score.run]) for score in found]  # whichever spelling it was measured by
    versions = {(run.key, run.version) for run in there}
    kept = [score for score in found if (score.run, score.checkpoint) in versions]
    for run in there:
        if not any(score.run == run.key for score in kept):
            raise ValueError(f"no scores of the weights that {run.url} has now: run evaluate again")
    if len(kept) < len(found):
        log.warn(f"{len(found) - len(kept)} scores are of weights that their runs no longer have; they are left out")
    return kept, there


def _runs(found: Sequence[Score], folder: str) -> list[Run]:
    """The runs that scores name, at the checkpoints that were scored; each checkpoint as it is now."""
    there: dict[tuple[str, str], Run] = {}
    for key, checkpoint in sorted({(score.run, score.checkpoint.partition("@")[0]) for score in found}):
        try:
            run = runs.read(records.resolve(key, folder), folder, checkpoint)
            there[run.key, checkpoint] = run
        except ValueError as error:
            raise ValueError(
                f"{error}; scores at {folder} are of it: "
                f'bring it back, or remove those files, in which "run" is {key!r}'
            ) from error
    return runs.named_apart(list(there.values()))
