"""What a plugin says of itself, which a report puts into its sentences: a new file in these folders is tested here."""

from typing import Any

import pytest

from eval.reporting.wording import summary
from infra import plugins
from poison.attack import Attack
from train.objective import Objective

BASES: tuple[type[Any], ...] = (Attack, Objective)
PLUGINS = [
    pytest.param(base, name, id=f"{base.__name__}-{name}") for base in BASES for name in plugins.names(base.FOLDERS)
]
each = pytest.mark.parametrize(("base", "name"), PLUGINS)


@each
def test_a_plugin_says_what_it_does_itself_and_not_by_what_it_inherits(base: type[Any], name: str) -> None:
    plugin = plugins.load(base.FOLDERS, name, base)
    assert "summary" in vars(plugin)
    assert summary(base, name) == plugin.summary


@each
def test_it_is_one_short_line_that_fits_into_a_sentence_after_the_name(base: type[Any], name: str) -> None:
    """`pairs were poisoned with badnet (a small patch over the image), so that`; `mmcl: CLIP's loss on clean pairs.`"""
    said = summary(base, name)
    assert 0 < len(said) < 120
    assert said.isprintable() and said == " ".join(said.split())
    assert not set(said) & set('.:;()"')
    first = said.split()[0]
    assert first[0].islower() or any(letter.isupper() for letter in first[1:]), "a name such as CLIP, or a small letter"


@pytest.mark.parametrize("base", BASES)
def test_a_plugin_that_is_not_installed_has_none(base: type[Any]) -> None:
    assert summary(base, "nothing-of-that-name") == ""


@pytest.mark.parametrize("base", BASES)
def test_no_two_plugins_say_the_same(base: type[Any]) -> None:
    said = [summary(base, name) for name in plugins.names(base.FOLDERS)]
    assert len(set(said)) == len(said)
