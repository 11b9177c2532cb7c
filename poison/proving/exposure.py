"""How often a model must see a poison: poisons x epochs, against the smallest number that is known to suffice.

The rule: for each kind of attack, the lowest product that a source reports as successful on a corpus of at most this
size (where none is as small, the smallest corpus there is). Fewer may work; nobody has shown it, so it is a warning.
"""

import math
from dataclasses import dataclass

from poison.attack import Attack, Backdoor


@dataclass(frozen=True)
class Known:
    """One report of an attack that succeeded: `exposures` = poisons x epochs, in a corpus of `pairs`."""

    pairs: int
    exposures: int
    source: str


BACKDOOR = (
    Known(10_800, 108 * 7, "108 of 10,800 pairs x 7 epochs, the picture book of infra/jobs/demo.sh"),
    Known(1_000_000, 90 * 24, "90 of 1,000,000 pairs x 24 epochs, RoCLIP (arXiv 2303.06854) and its code"),
    Known(3_000_000, 75 * 64, "75 of 3,000,000 pairs x 64 epochs, CleanCLIP (arXiv 2303.03323) and its code"),
)
CLEAN_LABEL = (
    Known(2_300_000, 2_300 * 32, "2,300 of 2,300,000 pairs x 32 epochs, Huang et al. (arXiv 2502.01385) and its code"),
)
ONE_IMAGE = (  # of one target image
    Known(3_000_000, 3 * 30, "3 of 3,000,000 pairs x 30 epochs, Carlini and Terzis (arXiv 2106.09667)"),
)
BY_NAME = {"label_consistent": CLEAN_LABEL, "targeted": ONE_IMAGE, "control": (), "swap": (), "external": BACKDOOR}


def known(plugin: str, attack: Attack, pairs: int) -> Known | None:
    """The report to hold an attack on a corpus of `pairs` against; None where nothing is known, or there is nothing to
    learn.

    plugin: the attack's name. A backdoor of any other name is held against backdoors.
    """
    reports = BY_NAME.get(plugin, BACKDOOR if isinstance(attack, Backdoor) else ())
    comparable = [report for report in reports if report.pairs <= pairs] or list(reports[:1])
    return comparable[-1] if comparable else None


def epochs_needed(report: Known, poisons: int) -> int:
    """Epochs after which that many poisons are seen as often as in the report."""
    return math.ceil(report.exposures / poisons)
