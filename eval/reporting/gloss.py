"""A plugin in a few words, from the first line of its module: "Blended: a pattern ... (Chen et al. 2017)" says what."""

import re
import sys

from infra import plugins
from poison.attack import Attack
from train.objective import Objective


def attack(name: str) -> str:
    """E.g. a small patch over the image. Empty for a plugin that is not installed here, or says nothing of itself."""
    return _first_words(Attack, name) if name in plugins.names(Attack.FOLDERS) else ""


def objective(name: str) -> str:
    return _first_words(Objective, name) if name in plugins.names(Objective.FOLDERS) else ""


def _first_words(base: type[Attack] | type[Objective], name: str) -> str:
    plugin = plugins.load(base.FOLDERS, name, base)  # type: ignore[type-abstract]
    return shortened(sys.modules[plugin.__module__].__doc__ or plugin.__doc__ or "")


def shortened(text: str) -> str:
    """The first words of a docstring, to a comma, a bracket or the sentence's end, without a name before a colon."""
    line = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"[,.:;] | \(|\.$", re.sub(r"^[^:,.]{1,40}: ", "", line))[0]
