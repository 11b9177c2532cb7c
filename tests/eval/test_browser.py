"""The report in a real Chromium: nothing broken or fetched, nothing wider than the screen, the verdict first."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.reporting import suspicion
from eval.reporting.page import render
from poison.sheets.layout import shrunk
from tests.support import matrix_cases
from tests.support.browser import Browser, chromium, find
from tests.support.pages import parsed
from tests.support.report_cases import CASES, html, material, preview_of
from tests.support.scan_cases import cluster, scan

WIDTHS = (1280, 400)
PLACES = """(() => [...document.querySelectorAll('h1, h2, .about, table.chart, .hero img, .story, .caveats, .glance')]
  .map(e => ({kind: e.tagName.toLowerCase() + '.' + e.className, text: e.innerText ?? '',
              top: e.getBoundingClientRect().top + scrollY, bottom: e.getBoundingClientRect().bottom + scrollY,
              width: e.getBoundingClientRect().width})))()"""
BROKEN = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0 || i.getBoundingClientRect().width < 40)"
WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && !e.matches('.unseen') &&
  (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1))
  .map(e => e.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("reports")
    for name in CASES:
        (made / f"{name}.html").write_text(html(name))
    captions = ["a close-up of a very ripe banana on a checkered tablecloth", "a banana " + "long" * 30] * 6
    found = scan(made / "scan", [cluster(number, number == 0, captions) for number in range(3)])
    (made / "scan.html").write_text(suspicion.render(found))
    return made


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten attacks by six methods, every run under every attack, on photographs."""
    made = tmp_path_factory.mktemp("matrix") / "matrix.html"
    made.write_text(render(matrix_cases.grid(cross=True)))
    return made


@pytest.mark.parametrize("case", [*CASES, "scan"])
def test_no_complaint_no_request_no_broken_image_and_nothing_too_wide(
    browser: Browser, folder: Path, case: str
) -> None:
    url = (folder / f"{case}.html").as_uri()
    for width in WIDTHS:
        page = browser.open(url, width)
        assert page.requested() == [url]
        assert page.complaints() == []
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate(WIDE) == []
        assert page.evaluate(f"{BROKEN}.length") == 0
        page.close()


def test_ten_attacks_by_six_methods_are_a_file_below_five_megabytes(matrix: Path) -> None:
    assert matrix.stat().st_size < 5_000_000
    parsed(matrix.read_text())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_matrix_comes_first_and_nothing_in_it_overflows(browser: Browser, matrix: Path, width: int) -> None:
    page = browser.open(matrix.as_uri(), width)
    tables: list[str] = page.evaluate("[...document.querySelectorAll('table')].map(e => e.className)")
    assert tables[0] == "heat"
    assert page.evaluate("document.querySelectorAll('table.heat')[0].querySelectorAll('td.spot').length") == 10 * 8
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert page.complaints() == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate(WIDE) == []
    assert page.evaluate(f"{BROKEN}.length") == 0
    spill = "[...document.querySelectorAll('td.spot')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(spill) == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_a_matrix_have_contrast_on_their_colour(browser: Browser, matrix: Path, scheme: str) -> None:
    page = browser.open(matrix.as_uri(), 1280, dark=scheme == "dark")
    found: list[list[str]] = page.evaluate(
        """[...document.querySelectorAll('td.spot.hot')].map(e =>
          [...e.querySelectorAll('b, small'), e].map(x => getComputedStyle(x).color).concat(
          [getComputedStyle(e).backgroundColor, e.style.getPropertyValue('--heat')]))"""
    )
    page.close()
    assert {heat for *_, heat in found} >= {"0", "1", "98"}
    for *inks, ground, heat in found:
        assert all(contrast(ink, ground) >= 4.5 for ink in inks), (scheme, heat)
    grounds = {heat: luminance(ground) for *_, ground, heat in found}
    assert abs(grounds["98"] - grounds["1"]) > 0.03, "a high number has another ground than a low one"


def test_folded_parts_of_a_long_page_are_open_on_paper(browser: Browser, matrix: Path) -> None:
    page = browser.open(matrix.as_uri(), 1280)
    low = "[...document.querySelectorAll('details')].filter(e => e.getBoundingClientRect().height < 40).length"
    number = page.evaluate("document.querySelectorAll('details').length")
    assert number > 50
    assert page.evaluate(low) >= number - 10, "those within a folded one have no height of their own"
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate(low) == 0
    page.close()


@pytest.mark.parametrize("case", ["whole", "several seeds", "two attacks, two test sets"])
def test_the_first_screen_says_what_was_attacked_what_was_tried_and_what_won(
    browser: Browser, folder: Path, case: str
) -> None:
    page = browser.open((folder / f"{case}.html").as_uri(), 1280, 800)
    places: list[dict[str, Any]] = page.evaluate(PLACES)
    page.close()
    seen = " ".join(place["text"] for place in places if place["bottom"] <= 800)
    for word in ("badnet", "banana", "cleanclip", "The badnet attack works"):
        assert word in seen
    if case != "two attacks, two test sets":
        kinds = {place["kind"] for place in places if place["bottom"] <= 800}
        assert {"h1.verdict", "table.chart", "dl.story", "img.pixels"} <= kinds
        assert "Never poisoned" in seen
        assert "Baseline, no defence" in seen


def test_on_a_phone_two_screens_hold_the_verdict_the_images_and_the_numbers(browser: Browser, folder: Path) -> None:
    page = browser.open((folder / "whole.html").as_uri(), 400, 800)
    places: list[dict[str, Any]] = page.evaluate(PLACES)
    page.close()
    low = {place["kind"]: place["bottom"] for place in places}
    assert low["h1.verdict"] <= 800
    assert low["img.pixels"] <= 800
    assert low["table.chart"] <= 1600
    assert all(place["width"] >= 120 for place in places if place["kind"] == "img.pixels")


@pytest.mark.parametrize(("case", "most"), [("whole", 5), ("one run", 4), ("many runs", 12), ("scan", 4)])
def test_on_paper_it_takes_a_few_pages_and_no_image_is_cut(
    browser: Browser, folder: Path, case: str, most: int
) -> None:
    page = browser.open((folder / f"{case}.html").as_uri(), 1280)
    data = page.pdf()
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    page.close()
    assert data.startswith(b"%PDF-")
    assert 2 <= pages <= most


def test_on_paper_every_image_and_row_stays_on_one_page(browser: Browser, folder: Path, tmp_path: Path) -> None:
    large = np.zeros((3000, 900, 3), np.uint8)
    high = replace(material("whole"), preview=[shrunk(preview_of(large, large, "was", "now"))])
    found = (folder / "scan.html").read_text()
    (tmp_path / "high.html").write_text(
        html("whole") + render(high) + found
    )  # pairs of usual images, and of a high one
    page = browser.open((tmp_path / "high.html").as_uri(), 700)
    page.call("Emulation.setEmulatedMedia", media="print")
    loose = """[...document.querySelectorAll('img, tr, svg.chart')].filter(e => {
      for (let up = e; up; up = up.parentElement) if (getComputedStyle(up).breakInside === 'avoid') return false;
      return true}).map(e => e.outerHTML.slice(0, 90))"""
    assert page.evaluate(loose) == []
    assert page.evaluate("Math.max(...[...document.images].map(i => i.getBoundingClientRect().height))") < 1000
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_screen_of_a_scan_has_its_verdict_and_its_chart_can_be_read(
    browser: Browser, folder: Path, width: int
) -> None:
    page = browser.open((folder / "scan.html").as_uri(), width, 800)
    low = "document.querySelector('{}').getBoundingClientRect().bottom"
    assert page.evaluate(low.format("svg.chart")) <= 800
    letters = "[...document.querySelectorAll('svg.chart text')].map(e => e.getBoundingClientRect().height)"
    assert min(page.evaluate(letters)) >= 9
    grid = page.evaluate("document.querySelectorAll('.exhibit img')[1].getBoundingClientRect().height")
    assert grid <= 1200, "a dozen images are seen together"
    page.close()


@pytest.mark.parametrize(("case", "inks"), [("whole", 4), ("scan", 2)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_on_its_ground(browser: Browser, folder: Path, scheme: str, case: str, inks: int) -> None:
    page = browser.open((folder / f"{case}.html").as_uri(), 1280, dark=scheme == "dark")
    colours: list[list[str]] = page.evaluate(
        """[...document.querySelectorAll('h1, p, td, td b, th, small, dd, dt, figcaption, a, .badge, mark')].map(e => {
          let ground = e;
          while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
          return [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor, e.outerHTML.slice(0, 60)]})"""
    )
    page.close()
    assert len({colour for colour, _, _ in colours}) >= inks
    for ink, ground, what in colours:
        assert contrast(ink, ground) >= 4.5, (scheme, what)


def contrast(a: str, b: str) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of two CSS colours rgb(r, g, b)."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Of rgb(r, g, b), or of a mixed colour: color(srgb r g b) with numbers from 0 to 1."""
    most = 1 if colour.startswith("color(") else 255
    parts = [float(part) / most for part in re.findall(r"[\d.]+(?:e-\d+)?", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_missing_browser_is_a_failure_where_it_must_be_there_and_a_loud_skip_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="make services"):
        find()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="make services"):
        find()


def test_a_page_that_is_broken_is_noticed(browser: Browser, tmp_path: Path) -> None:
    """These checks can fail: a page that has every fault they look for."""
    (tmp_path / "bad.html").write_text(
        '<!doctype html><img src="data:image/png;base64,AAAA"><img src="gone.png"><div style="width: 3000px">wide</div>'
        "<script>console.error('no')</script>"
    )
    page = browser.open((tmp_path / "bad.html").as_uri(), 400)
    assert len(page.requested()) == 2
    assert any("consoleAPICalled" in json.dumps(said) or "no" in said for said in page.complaints())
    assert page.evaluate(f"{BROKEN}.length") == 2
    assert page.evaluate("document.scrollingElement.scrollWidth") > 400
    assert len(page.evaluate(WIDE)) >= 1
    page.close()
