"""The picture book: what is drawn, what is said of it, and how it is served. The server is real, on loopback."""

import hashlib
import http.client
import inspect
import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import open_clip
import pytest
from PIL import Image

from infra import config
from infra.seeding import rng
from pipeline.picturebook import catalogue, figures
from pipeline.picturebook.captions import caption, describe
from pipeline.picturebook.catalogue import ALL, names
from pipeline.picturebook.draw import encoded, jpeg, labelled_picture, picture, render
from pipeline.picturebook.faults import NO_FAULTS, Faults, outcome
from pipeline.picturebook.pen import Pen
from pipeline.picturebook.scenes import TEMPLATES, THINGS, Background, Scene, Thing, labelled, scene
from pipeline.picturebook.server import PORT, serving, table, url
from pipeline.picturebook.web import Book, answer
from pipeline.picturebook.words import BACKGROUNDS, COLOURS, RELATIONS
from pipeline.source import Source
from pipeline.sources.picturebook import Picturebook
from tests.support.ports import free_port

MANY = range(1500)
BAD = Faults(
    total=0.7, not_found=0.2, server_error=0.2, slow=0.1, truncated=0.2, wrong_type=0.2, tiny=0.1, sluggish=0.2
)


# ---- images ----------------------------------------------------------------------------------------------------


def test_an_image_depends_on_seed_and_index_alone():
    forwards = [picture(3, index, 32) for index in range(20)]
    backwards = [picture(3, index, 32) for index in reversed(range(20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert len({p.tobytes() for p in forwards} | {picture(4, index, 32).tobytes() for index in range(20)}) == 40
    assert picture(3, 0, 48).shape == (48, 48, 3)
    assert picture(3, 0, 48).dtype == np.uint8


def test_the_same_scene_is_drawn_at_every_size():
    def shrunk(index: int) -> np.ndarray:
        return np.asarray(Image.fromarray(picture(0, index, 96)).reduce(3)).astype(float)

    for index in range(10):
        small = picture(0, index, 32).astype(float)
        assert np.abs(small - shrunk(index)).mean() < 15 < np.abs(small - shrunk(index + 1)).mean()


# ---- a book of more things -------------------------------------------------------------------------------------

LARGE = len(ALL)


def test_the_usual_book_is_what_it_always_was():
    """To the byte: images, captions, urls, and what a recipe says of the source. Captions and pixels of other numpy or
    Pillow versions would differ; these are locked."""
    found = hashlib.sha256()
    for index in range(60):
        found.update(f"{caption(3, index)} {url(3, index)} {labelled(3, index)[0]}".encode())
        found.update(picture(3, index, 32).tobytes() + labelled_picture(3, index, 32).tobytes())
    assert found.hexdigest() == "760922765268a7aae9d0104ebdee9985d9b3d527711de62eaa4cf2bb5a9eeed2"
    assert config.to_json(Picturebook()) == {"plugin": "picturebook", "rows": 12_000, "start": 0, "picture_size": 32,
                                             "faults": 0.1, "book_seed": 0, "port": PORT}  # fmt: skip
    assert config.from_json(Picturebook, config.to_json(Picturebook())) == Picturebook() == Picturebook(things=14)
    assert Picturebook().numbering({}) == {"plugin": "picturebook", "book_seed": 0}


def test_a_larger_book_begins_with_the_things_of_a_smaller_and_shares_no_image_with_it():
    assert LARGE > 200 and len(set(ALL)) == LARGE and ALL[:14] == THINGS == names()
    assert names(100) == ALL[:100]
    images = {size: {picture(0, index, 32, size).tobytes() for index in range(30)} for size in (14, 100, 200)}
    assert len(set.union(*images.values())) == 90
    assert not images[100] & {labelled_picture(0, index, 32, 100).tobytes() for index in range(100)}
    assert config.to_json(Picturebook(things=100))["things"] == 100
    assert config.from_json(Source, config.to_json(Picturebook(things=100))) == Picturebook(things=100)
    assert Picturebook(things=100).numbering({}) != Picturebook().numbering({}), (
        "their row ids say nothing of each other"
    )


@pytest.mark.parametrize("things", [1, LARGE + 1])
def test_an_impossible_number_of_things_is_refused(things):
    with pytest.raises(ValueError, match=f"has 2 to {LARGE} things, not {things}"):
        Picturebook(things=things)
    assert answer(Book(port=PORT, size=32, faults=NO_FAULTS), f"/0/{things}/0000001.jpg").status == 404


def test_help_and_page_say_how_many_things_there_are():
    assert f"2 to {LARGE};" in inspect.getsource(Picturebook)
    assert f"2 to {LARGE}," in figures.FILE.parents[1].joinpath("things.md").read_text()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start": 10**19}, "rows end below"),
        ({"start": 10**18 - 11_999}, "rows end below"),
        ({"book_seed": -(10**20)}, "book_seed lies within"),
        ({"faults": 1.5}, "faults is a share, 0 to 1, not 1.5"),
        ({"faults": -0.1}, "faults is a share, 0 to 1, not -0.1"),
    ],
)
def test_a_book_that_cannot_be_served_is_refused_before_it_is_planned(fields, said):
    with pytest.raises(ValueError, match=said):
        Picturebook(**fields)


def test_the_last_row_of_the_largest_seed_is_served():
    last = Picturebook(start=10**18 - 1, rows=1, book_seed=-(10**20) + 1, faults=0.0)
    address = last.table()["url"][0].as_py()
    assert answer(Book(port=PORT, size=32, faults=NO_FAULTS), address.partition(str(PORT))[2]).status == 200


def test_everything_in_a_large_book_occurs_and_is_said():
    scenes = [scene(0, index, LARGE) for index in range(8 * LARGE)]
    shown = Counter(thing.name for view in scenes for thing in view.things)
    assert set(shown) == set(ALL) and max(shown.values()) < 30
    for index, view in enumerate(scenes):
        text = caption(0, index, LARGE)
        said = f" {text.replace(',', '')} "
        assert any(f" {thing.name} " in said for thing in view.things), text
        assert text == text.strip().lower()
        for article, word in pairwise(text.split()):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou"), text
    own = [name for name in ALL if not catalogue.kind(name).colours]
    assert "rainbow" in own and "french flag" in own
    for name in own:
        alone = Scene((replace(scenes[0].things[0], name=name, colour="", texture="plain"),), None, WALL)
        assert not any(set(describe(alone, rng(0, name, n)).split()) & (set(COLOURS) - {"white"}) for n in range(9)), (
            name
        )  # the wall is


def test_a_tokenizer_tells_all_names_apart():
    tokens = open_clip.SimpleTokenizer(context_length=24)([f"a photo of a {name}" for name in ALL])
    assert len({tuple(row) for row in tokens.tolist()}) == LARGE
    assert all(row[-1] == 0 for row in tokens.tolist()), "none is cut"


def test_test_sets_have_every_class_as_often():
    book = Picturebook(things=100)
    made = book.labelled(200, 0, "test")
    assert made.classes == names(100)
    assert Counter(label for *_, label in made.samples) == dict.fromkeys(range(100), 2)
    for _, _, said in book.captioned(20, 0, "test").samples:
        assert len(set(said)) == len(said) > 1


def test_a_figure_is_drawn_as_its_line_says():
    """A red square whose left half is blue, and the same as a repeated part."""
    for parts in ("box -50,-50 50,50 ; box.blue -50,-50 0,50", "2x box 0,-50 50,50 ; box.blue -50,-50 0,50"):
        name, figure = figures.parsed(f"thing | red | still 0 | {parts}")
        assert (name, figure.kind.flips, figure.kind.lean_degrees) == ("thing", False, 0.0)
        canvas = Image.new("RGB", (100, 100), "white")
        red = Thing("thing", "red", (200, 40, 40), "plain", "large", 0.5, 0.5, 0.5, 1.0, 0.0, False, (0.5, 0.5, 0.5))
        figures.draw(Pen(canvas, red), figure)
        assert canvas.getpixel((60, 50)) == (200, 40, 40)
        assert canvas.getpixel((40, 50)) == COLOURS["blue"]
        assert canvas.getpixel((10, 50)) == (255, 255, 255)
    for wrong in ("a | red | | blob 0,0 1,1", "a | reddish | | box 0,0 1,1", "a | red | | box.reddish 0,0 1,1"):
        with pytest.raises(AssertionError):
            figures.parsed(wrong)


@pytest.mark.parametrize("size", [15, 513])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match="16 to 512 pixels"):
        picture(0, 0, size)


def test_an_index_below_zero_is_refused():
    with pytest.raises(ValueError, match="0 or more, not -1"):
        picture(0, -1, 32)


WALL = Background("plain", "white", (255, 255, 255), (255, 255, 255))


def alone(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A red thing before a white wall, and where it is."""
    thing = Thing(name, "red", (200, 40, 40), "plain", "large", 0.5, 0.5, 0.45, 1.0, 0.0, False, (0.5, 0.5, 0.5))
    with_it, without = (
        render(Scene(things, None, WALL), size, rng(0, "test")).astype(int) for things in ((thing,), ())
    )
    return with_it, np.abs(with_it - without).max(axis=2) > 40


def test_no_two_things_of_the_large_book_look_alike_at_32_pixels():
    """The mean difference of two drawings, of 255; the nearest are two flags, letters or signs."""
    drawn = {name: alone(name, 32)[0] for name in ALL}
    for name, image in drawn.items():
        for other in ALL[: ALL.index(name)]:
            apart = np.abs(image - drawn[other]).mean()
            assert apart > 4, f"{name} looks like {other}: {apart:.1f}"


def test_no_two_things_have_nearly_the_same_outline():
    def outline(name: str) -> np.ndarray:
        return alone(name, 64)[1]

    masks = {name: outline(name) for name in THINGS}
    for name, mask in masks.items():
        assert 0.08 < mask.mean() < 0.75, name
        for other in THINGS:
            if other != name:
                overlap = (mask & masks[other]).sum() / (mask | masks[other]).sum()
                assert overlap < 0.85, f"{name} looks like {other}"


def test_the_encoded_image_is_a_jpeg_of_the_drawn_one():
    image = Image.open(io.BytesIO(encoded(0, 5, 64)))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
    assert np.abs(np.asarray(image).astype(int) - picture(0, 5, 64)).mean() < 8
    assert len(encoded(0, 5, 64, quality=30)) < len(encoded(0, 5, 64))


# ---- scenes ------------------------------------------------------------------------------------------------------


def test_everything_in_the_book_occurs():
    scenes = [scene(0, index) for index in MANY]
    assert {thing.name for view in scenes for thing in view.things} == set(THINGS)
    assert {view.background.kind for view in scenes} == set(BACKGROUNDS)
    assert {view.relation for view in scenes} == {None, *RELATIONS}
    assert len(THINGS) >= 12
    assert THINGS[0] == "banana"
    bananas = Counter(t.colour for view in scenes for t in view.things if t.name == "banana")
    assert set(bananas) == {"yellow", "green"}
    assert bananas["yellow"] > 3 * bananas["green"]


def test_two_things_are_different_and_stand_as_their_relation_says():
    pairs = [view for index in MANY if len((view := scene(1, index)).things) == 2]
    assert 0.15 < len(pairs) / len(MANY) < 0.4
    for view in pairs:
        first, second = view.things
        assert first.name != second.name
        if view.relation == "above":
            assert first.y < second.y - 0.2
        elif view.relation == "below":
            assert first.y > second.y + 0.2
        elif view.relation == "left":
            assert first.x < second.x - 0.2
        elif view.relation == "right":
            assert first.x > second.x + 0.2


def test_what_stands_in_front_covers_what_is_behind():
    wall = Background("plain", "white", (255, 255, 255), (255, 255, 255))
    ball, house = (
        Thing(name, "red", rgb, "plain", "large", 0.5, 0.5, 0.4, 1.0, 0.0, False, (0.5, 0.5, 0.5))
        for name, rgb in (("ball", (200, 40, 40)), ("house", (40, 40, 200)))
    )
    for relation, top in (("front", 0), ("behind", 2)):  # the ball, which is red, is the first
        middle = render(Scene((ball, house), relation, wall), 64, rng(0, "test"))[29, 39:41].mean(axis=0)
        assert middle.argmax() == top, relation


def test_things_stay_inside_the_image():
    for index in MANY:
        for thing in scene(2, index).things:
            assert thing.radius - 0.08 < thing.x < 1.08 - thing.radius
            assert thing.radius - 0.08 < thing.y < 1.08 - thing.radius


def test_the_labelled_stream_is_balanced_and_apart_from_the_training_stream():
    n = len(THINGS)
    rows = [labelled(0, index) for index in range(5 * n)]
    assert Counter(label for label, _ in rows) == dict.fromkeys(range(n), 5)
    assert all(view.things[0].name == THINGS[label] and len(view.things) == 1 for label, view in rows)
    train = {picture(0, index, 32).tobytes() for index in range(5 * n)}
    assert not train & {labelled_picture(0, index, 32).tobytes() for index in range(5 * n)}
    assert not {scene(0, index) for index in MANY} & {view for _, view in rows}


# ---- captions ----------------------------------------------------------------------------------------------------


def test_captions_are_true_and_one_line():
    for index in MANY:
        view, text = scene(5, index), caption(5, index)
        words = text.replace(",", " ").split()
        assert text == text.strip().lower()
        assert not set(text) & set("\t\n\r")
        assert any(thing.name in words for thing in view.things)
        assert set(words) & set(THINGS) <= {thing.name for thing in view.things}
        seen = {thing.colour for thing in view.things} | {view.background.colour}
        surface = {"sky": {"blue"}, "grass": {"green"}}.get(view.background.kind, set())
        assert set(words) & set(COLOURS) <= seen | surface


def test_the_test_images_are_put_into_words_of_their_own_for_retrieval():
    book = Picturebook(book_seed=3)
    captioned, plain = book.captioned(28, 0, "test"), book.labelled(28, 0, "test")
    for (image, kind, said), (same, _, label) in zip(captioned.samples, plain.samples, strict=True):
        assert (image, kind) == (same, "jpg")
        assert len(said) == len(set(said)) > 1
        assert all(THINGS[label] in words for words in said)
    again = [said for *_, said in book.captioned(28, 0, "test").samples]
    assert again == [said for *_, said in book.captioned(30, 0, "test").samples][:28]
    assert again != [said for *_, said in book.captioned(28, 1, "test").samples]


def test_captions_have_the_right_article():
    text = " ".join(caption(6, index) + "." for index in MANY)
    assert " an apple" in text
    assert " an umbrella" in text
    assert " an orange " in text
    words = text.replace(",", "").split()
    for article, word in pairwise(words):
        if article in ("a", "an"):
            assert (article == "an") == (word[0] in "aeiou"), f"{article} {word}"


def test_captions_mention_an_attribute_only_sometimes():
    single = [index for index in MANY if len(scene(7, index).things) == 1]
    named = [scene(7, index).things[0].colour in caption(7, index).split() for index in single]
    placed = [caption(7, index).endswith(("table", "grass", "water", "night", "wall", "beach")) for index in single]
    assert 0.2 < np.mean(named) < 0.5
    assert 0.05 < np.mean(placed) < 0.4
    assert len({caption(7, index) for index in MANY}) > 500


def test_a_caption_tells_the_relation_from_either_side():
    for index in MANY:
        view, text = scene(8, index), caption(8, index)
        if view.relation in ("above", "below") and (" above " in text or " below " in text):
            said = "above" if " above " in text else "below"
            first = min(view.things, key=lambda thing: text.index(thing.name))
            assert said == (
                view.relation if first == view.things[0] else {"above": "below", "below": "above"}[view.relation]
            )


def test_templates_have_the_place_for_a_class():
    assert len(TEMPLATES) >= 8
    assert all(template.count("{c}") == 1 for template in TEMPLATES)


# ---- faults ------------------------------------------------------------------------------------------------------


def test_outcomes_come_at_the_rates_asked_for():
    counts = Counter(outcome(0, row, BAD) for row in range(6000))
    assert counts["ok"] / 6000 == pytest.approx(0.3 * 0.8, abs=0.03)
    assert counts["sluggish"] / 6000 == pytest.approx(0.3 * 0.2, abs=0.02)
    for kind, share in BAD.kinds():
        assert counts[kind] / 6000 == pytest.approx(0.7 * share, abs=0.03), kind


def test_a_row_that_fails_fails_alike_at_every_higher_rate():
    few, many = Faults(total=0.05), Faults(total=0.3)
    failing = [row for row in range(3000) if outcome(1, row, few) not in ("ok", "sluggish")]
    assert 90 < len(failing) < 220
    assert all(outcome(1, row, few) == outcome(1, row, many) for row in failing)


def test_without_faults_every_row_is_ok():
    assert {outcome(0, row, NO_FAULTS) for row in range(500)} == {"ok"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"total": 1.2}, "total is a share, 0 to 1, not 1.2"), ({"slow": 0.5}, "must add up to 1, not 1.45")],
)
def test_impossible_rates_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Faults(**wrong)


def test_an_answer_is_the_same_every_time():
    book = Book(port=PORT, size=32, faults=BAD)
    for row in range(40):
        assert answer(book, f"/9/{row:07d}.jpg") == answer(book, f"/9/{row:07d}.jpg")


def test_slow_is_far_above_the_time_out_and_sluggish_far_below():
    book = Book(port=PORT, size=32, faults=BAD, timeout_seconds=2.0)
    assert book.delay_seconds("slow") >= 6.0
    assert 0.0 < book.delay_seconds("sluggish") <= 0.2
    assert book.delay_seconds("ok") == 0.0


# ---- the server --------------------------------------------------------------------------------------------------


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    with serving(BAD, size=32, port=number, timeout_seconds=0.5) as place:
        assert place == f"127.0.0.1:{number}"
        yield number


def row_with(kind: str) -> int:
    return next(row for row in range(10_000) if outcome(0, row, BAD) == kind)


def fetch(port: int, kind: str) -> tuple[http.client.HTTPResponse, bytes]:
    answered = urllib.request.urlopen(url(0, row_with(kind), port), timeout=0.5)
    return answered, answered.read()


@pytest.mark.parametrize("kind", ["ok", "sluggish"])
def test_a_good_row_gives_its_image(port, kind):
    answered, body = fetch(port, kind)
    assert answered.status == 200
    assert answered.headers["Content-Type"] == "image/jpeg"
    assert int(answered.headers["Content-Length"]) == len(body)
    assert body == encoded(0, row_with(kind), 32)


@pytest.mark.parametrize(("kind", "status"), [("not_found", 404), ("server_error", 503)])
def test_a_refused_row_has_its_status(port, kind, status):
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(port, kind)
    assert error.value.code == status


def test_a_truncated_row_breaks_off(port):
    with pytest.raises(http.client.IncompleteRead) as error:
        fetch(port, "truncated")
    whole = encoded(0, row_with("truncated"), 32)
    assert error.value.partial == whole[: len(whole) // 2]


def test_a_row_of_the_wrong_type_is_a_page(port):
    answered, body = fetch(port, "wrong_type")
    assert answered.headers["Content-Type"].startswith("text/html")
    assert body.startswith(b"<!doctype html>")


def test_a_tiny_row_is_an_image_of_a_pixel_or_four(port):
    _, body = fetch(port, "tiny")
    assert Image.open(io.BytesIO(body)).size in ((1, 1), (2, 2))


def test_a_slow_row_outlasts_the_client(port):
    with pytest.raises(TimeoutError):
        fetch(port, "slow")
    assert answers(port)


def test_one_connection_serves_many_requests(port):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for kind in ("ok", "not_found", "sluggish", "ok"):
        client.request("GET", f"/0/{row_with(kind):07d}.jpg")
        assert client.getresponse().read()
    client.request("HEAD", f"/0/{row_with('ok'):07d}.jpg")
    answered = client.getresponse()
    assert (answered.read(), int(answered.headers["Content-Length"])) == (b"", len(encoded(0, row_with("ok"), 32)))
    client.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /0/../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /0/12.png HTTP/1.1\r\n\r\n", 404),
        (b"POST /0/0000001.jpg HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", 405),
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000, 431),
    ],
)
def test_whatever_else_is_asked_has_an_answer(port, request_bytes, status):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request_bytes)
        assert client.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())


def test_requests_sent_at_once_are_answered_in_order(port):
    late, soon = row_with("sluggish"), row_with("not_found")
    wanted = b"".join(f"GET /0/{row:07d}.jpg HTTP/1.1\r\n\r\n".encode() for row in (late, soon))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(wanted)
        received = b""
        while b"404 Not Found" not in received:
            received += client.recv(65536)
    assert received.startswith(b"HTTP/1.1 200 OK")


def test_the_table_is_captions_and_addresses():
    rows = list(table(0, start=30, rows=3, port=9000))
    assert [address for _, address in rows] == [f"http://127.0.0.1:9000/0/{row:07d}.jpg" for row in (30, 31, 32)]
    assert [text for text, _ in rows] == [caption(0, row) for row in (30, 31, 32)]


def test_a_taken_port_is_refused_and_named(port):
    with pytest.raises(ValueError, match=f"port {port} on 127.0.0.1 is taken"), serving(port=port):
        pass


def test_an_impossible_port_is_refused():
    with pytest.raises(ValueError, match="port is 1024 to 65535, not 80"), serving(port=80):
        pass


def test_the_server_is_gone_after_its_block():
    number = free_port()
    with serving(NO_FAULTS, port=number):
        assert answers(number)
    assert not answers(number)
    with serving(NO_FAULTS, port=number):  # and the port is free at once
        assert answers(number)


def test_the_server_dies_with_its_owner():
    number = free_port()
    code = f"import time; from pipeline.picturebook.server import serving\nwith serving(port={number}): time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()})
    try:
        assert within(20, lambda: answers(number))
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert within(5, lambda: not answers(number))


def within(seconds: float, happens) -> bool:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_jpegs_of_equal_pixels_are_equal():
    assert jpeg(picture(0, 1, 32)) == encoded(0, 1, 32)
