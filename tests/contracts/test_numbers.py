"""Every setting of every entry that is a number: nan and infinity are refused, in one line with status 2."""

import dataclasses
import typing
from collections.abc import Iterator

import pytest
import tyro

from eval.measuring.evaluation import Evaluation
from eval.reporting.report import Report
from eval.studies.runner import Studying
from eval.studies.tabulation import Tabulation
from infra import config, plugins
from pipeline.labelling import Labelling
from pipeline.preparation import Preparation
from pipeline.verification import Verification
from poison.learning.optimization import Optimization
from poison.proving.evidence import Evidence
from poison.sheets.sheet import Sheet
from poison.writing.injection import Injection
from train.training import Finetuning, Pretraining

PLAIN = (Evaluation, Report, Studying, Tabulation, Verification, Optimization, Evidence, Sheet)
WITH_PLUGIN = {Preparation: "source", Labelling: "source", Injection: "attack", Pretraining: "objective"}
WITH_PLUGIN |= {Finetuning: "objective"}


def flags(kind: type, wanted: bool = True) -> Iterator[tuple[str, str]]:
    """(flag, value) of the fields that are a fraction; not wanted: of those that must be given."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, required = hints[field.name], field.default is field.default_factory is dataclasses.MISSING
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if tyro.conf.Suppress in getattr(hint, "__metadata__", ()) or hasattr(inner, "FOLDERS"):
            continue
        if dataclasses.is_dataclass(inner):
            yield from flags(inner, wanted)
        elif wanted and float in (inner, *typing.get_args(inner)):
            yield f"--{field.name.replace('_', '-')}", "nan"
        elif not wanted and tyro.conf.Positional in getattr(hint, "__metadata__", ()):
            yield "", "x"
        elif not wanted and required:
            yield f"--{field.name.replace('_', '-')}", "1" if inner in (int, float) else "x"


def cases() -> Iterator[tuple[str, type, str | None, list[str], str]]:
    for kind in (*PLAIN, *WITH_PLUGIN):
        field = WITH_PLUGIN.get(kind)
        base = typing.get_type_hints(kind)[field] if field else None
        for name in plugins.names(base.FOLDERS) if base else [None]:
            parts = [kind, *([plugins.load(base.FOLDERS, name, base)] if base else [])]
            needed = [pair for part in parts for pair in flags(part, wanted=False)]
            for flag, _ in (pair for part in parts for pair in flags(part)):
                without = [word for pair in needed if pair[0] != flag for word in pair if word]
                yield f"{kind.__name__} {name or ''} {flag}", kind, field, [*([name] if name else []), *without], flag


CASES = {label: rest for label, *rest in cases()}


def test_there_are_numbers_of_every_kind():
    said = " ".join(CASES)
    for flag in ("Pretraining safeclip --slow-rate", "Injection sig --delta", "Injection wanet --strength",
                 "--cache-gib", "Optimization  --margin", "Preparation picturebook --faults",
                 "Finetuning clip --weight-decay"):  # fmt: skip
        assert flag in said
    assert len(CASES) > 100


@pytest.mark.parametrize("case", CASES)
def test_a_number_that_is_none_is_refused(case, capsys):
    kind, plugin, words, flag = CASES[case]
    for value in ("nan", "inf"):
        with pytest.raises(SystemExit) as end:
            config.parse(kind, [*words, flag, value], prog="x", description="", plugin=plugin)
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert flag.lstrip("-").replace("-", "_") in said.replace("-", "_")
