import itertools
import re
import xml.etree.ElementTree as tree

import pytest

from eval.reporting import drawing, rendering
from eval.reporting.drawing import Mark, Strip


def curves(series: list[tuple[str, list[tuple[float, float]]]], title: str) -> str:
    return rendering.macro("drawing.html", "chart", drawing.chart(series, title))


def strip(marks: list[Mark], floor: float | None, label: str) -> str:
    return rendering.macro("drawing.html", "strip", Strip(marks, floor, label))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.3, 7.4, [0, 2, 4, 6, 8]),
        (0, 1312, [0, 500, 1000, 1500]),
        (2, 2, [1.5, 1.7, 1.9, 2.1, 2.3, 2.5]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float, expected: list[float]) -> None:
    found = drawing.ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    if low != high:
        assert found == expected


def test_a_long_curve_is_averaged_not_sampled() -> None:
    points = [(float(step), 100.0 if step == 501 else 0.0) for step in range(1000)]
    thin = drawing.thinned(points, most=100)
    assert len(thin) == 100
    assert max(y for _, y in thin) == 10


def test_a_short_curve_stays_as_it_is() -> None:
    assert drawing.thinned([(0.0, 1.0), (1.0, 2.0)]) == [(0.0, 1.0), (1.0, 2.0)]


def test_curves_are_well_formed_and_name_every_series() -> None:
    text = curves([("a <b>", [(0, 3.0), (10, 1.0)]), ("c", [(0, 2.0), (5, float("nan"))])], "loss by step")
    tree.fromstring(f"<div>{text}</div>")
    assert "a &lt;b&gt;" in text
    assert "nan" not in text
    assert curves([("empty", [])], "loss by step") == "<p>No curve was recorded.</p>"


def test_curves_differ_by_dash_as_well_as_by_colour() -> None:
    text = curves([(str(number), [(0, 1.0), (1, 2.0)]) for number in range(12)], "loss")
    looks = re.findall(r'<polyline class="curve (c\d)" stroke-dasharray="([^"]*)"', text)
    assert len(set(looks)) == 12
    assert all(before[1] != after[1] for before, after in itertools.pairwise(looks))


def test_a_strip_places_a_share_at_its_percentage() -> None:
    text = strip([Mark(1.0, 0.9, 1.0, "ca", False), Mark(0.5, 0.4, 0.6, "asr", True)], 0.05, "half")
    tree.fromstring(text)
    assert 'width="50.00%"' in text
    assert 'cx="100.00%"' in text
    assert 'x1="5.00%"' in text
    assert 'x1="40.00%" x2="60.00%"' in text


def test_a_bar_of_nothing_can_still_be_seen() -> None:
    assert 'x="0.00%" y="50%" width="2"' in strip([Mark(0.0, 0.0, 0.01, "asr", True)], None, "none")
