import dataclasses
import typing

import pytest

from infra import config, plugins
from pipeline.preparation import Preparation
from pipeline.source import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()
    mode: typing.Literal["a", "b"] = "a"
    limit: int | None = None


def test_an_object_is_read_back_equal():
    value = Inner(rate=1.0, names=("x", "y"), mode="b", limit=3)
    assert config.from_json(Inner, config.to_json(value)) == value
    assert config.from_json(Inner, {"rate": 1}) == Inner(rate=1.0)


def test_a_plugin_is_written_by_its_name():
    cc3m = plugins.load(Source.FOLDERS, "cc3m", Source)
    written = config.to_json(cc3m(urls="a.tsv"))
    assert written == {"plugin": "cc3m", "urls": "a.tsv"}
    assert config.from_json(Source, written) == cc3m(urls="a.tsv")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rat": 1.0}, "no field 'rat'; it has: limit, mode, names, rate"),
        ({"mode": "c"}, "'c' is not one of a, b"),
        ({"rate": "x"}, "'x' is not of type float"),
        ({"names": 3}, "3 is not a list"),
    ],
)
def test_what_does_not_fit_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        config.from_json(Inner, data)


def test_every_source_survives_the_way_through_json():
    for name in plugins.names(Source.FOLDERS):
        cls = plugins.load(Source.FOLDERS, name, Source)
        required = {
            field.name: "x"
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        assert config.from_json(Source, config.to_json(cls(**required))) == cls(**required)


def parse(*words):
    return config.parse(Preparation, words, prog="pipeline/prepare.py", description="d", plugin="source")


def test_the_first_word_picks_the_plugin_and_its_fields_are_flags():
    parsed = parse("cc3m", "--urls", "t.tsv", "--out", "o", "--rows-per-shard", "7")
    assert type(parsed) is Preparation
    assert config.to_json(parsed.source) == {"plugin": "cc3m", "urls": "t.tsv"}
    assert parsed.rows_per_shard == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cc3n", "--out", "o"], "perhaps you meant 'cc3m'"),
        ([], "the first word must name the source, one of: cc12m, cc3m, folder, parquet, picturebook"),
        (["cc3m", "--urls", "t", "--out", "o", "--rows-per-shard", "0"], "rows_per_shard must be above 0, not 0"),
        (["cc3m", "--urls", "t", "--out", "o", "--row-per-shard", "3"], "--rows-per-shard"),
        (["cc3m", "--out", "o"], "--urls"),
    ],
)
def test_a_bad_command_ends_with_status_2_and_says_what_is_right(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_plugins_and_flags(capsys):
    for words in (["--help"], ["cc3m", "--help"]):
        with pytest.raises(SystemExit) as end:
            parse(*words)
        assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "picturebook" in shown
    assert "--rows-per-shard" in shown
