"""Prompts that a model cannot read to their end: its tokenizer cuts them without a word, so it is said here."""

from collections.abc import Sequence
from typing import Any

from infra import log

SHOWN = 3


def warn_of_cut(tokenizer: Any, names: Sequence[str], templates: Sequence[str]) -> None:
    """Warns of class names whose prompts are longer than the context, in one line that counts them and names a few.

    tokenizer: train.model.tokenizer's. templates: with {c} in the place of a name; the one of most tokens decides.
    """
    longest = max((template.strip() for template in templates), key=lambda template: len(tokenizer.encode(template)))
    room = tokenizer.context_length - 2  # its start and its end
    cut = [name for name in names if len(tokenizer.encode(longest.replace("{c}", name))) > room]
    if cut:
        shown = ", ".join(repr(name if len(name) <= 60 else f"{name[:57]}...") for name in cut[:SHOWN])
        more = f" and {len(cut) - SHOWN:,} more" if len(cut) > SHOWN else ""
        log.warn(
            f"{len(cut):,} of {len(names):,} class names do not fit into this model's prompts, which are cut after "
            f"{tokenizer.context_length} tokens (with {longest!r}): {shown}{more}"
        )
