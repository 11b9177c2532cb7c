import struct
import time

import numpy as np
import pytest

from pipeline import images, orientation
from pipeline.images import Unreadable
from tests.support import hostile_pictures as h


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (lambda: h.zeros_png(50_000, 1, 0), "too_many_pixels"),
        (lambda: h.resized_header(h.jpeg(), 8001, 8000), "too_many_pixels"),
        (lambda: h.wide_webp(50_000), "too_many_pixels"),
        (lambda: h.progressive_jpeg(8000, 2000), "too_many_pixels"),
        (lambda: h.small_png(*[h.chunk(b"tEXt", b"a\0b")] * 2000), "not_an_image"),
        (lambda: h.with_segments(h.segment(0xFE, b"") * 2000), "not_an_image"),
        (lambda: h.with_segments(b"\xff" * 5000), "not_an_image"),
        (lambda: h.wide_gif(32), "not_an_image"),
        (lambda: h.wide_tiff(32), "not_an_image"),
        (lambda: b"", "not_an_image"),
    ],
)
def test_what_must_not_be_decoded_is_refused_by_its_header(data, outcome):
    for read in (
        images.check_header,
        images.open_image,
        images.decode,
        images.plain,
        lambda data: images.fitted(data, 8),
        lambda data: images.decoded(data, 8),
    ):
        with pytest.raises(Unreadable) as refused:
            read(data())
        assert refused.value.outcome == outcome


@pytest.mark.parametrize(
    "data", [b"", b"no image", b"GIF89a", h.jpeg()[:300], h.small_png()[:60], b"\x89PNG\r\n\x1a\n"]
)
def test_a_message_is_for_people_and_shows_no_object_of_pythons(data):
    with pytest.raises(Unreadable, match="not a readable JPEG, PNG or WebP image") as refused:
        images.decode(data)
    assert "object at" not in str(refused.value)
    assert not str(refused.value).endswith(": ")


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"exif": EXIF}, 6),
        ({"exif": EXIF[6:]}, 6),  # as WebP has it
        ({"exif": b"Exif\0\0" + EXIF}, 6),
        ({"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"}, 6),
        ({"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\6\0\0\0"}, 6),  # a long number
        ({"exif": EXIF.replace(b"\0\6", b"\0\x09")}, 1),
        ({"exif": EXIF.replace(b"\0\6", b"\0\0")}, 1),
        ({"exif": EXIF.replace(b"\1\x12\0\3", b"\1\x12\0\2")}, 1),  # text
        ({"exif": EXIF.replace(b"\0\0\0\1\0\6", b"\0\0\0\2\0\6")}, 1),  # two numbers
        ({"exif": EXIF.replace(b"\0\0\0\x08", b"\xff\xff\xff\xff")}, 1),  # a table that lies elsewhere
        ({"exif": EXIF.replace(b"\x08\0\1", b"\x08\xff\xff")}, 6),  # a table that claims more than it has
        ({"exif": b""}, 1),
        ({"exif": b"\xff" * 40}, 1),
        ({"Raw profile type exif": f"\nexif\n      32\n{EXIF.hex()}\n"}, 6),
        ({"Raw profile type exif": "\nexif\n      32\nnot hexadecimal\n"}, 1),
        ({"xmp": b'<a tiff:Orientation="8"/>'}, 8),
        ({"XML:com.adobe.xmp": "<tiff:Orientation>8</tiff:Orientation>"}, 8),
        ({"xmp": b'<a tiff:Orientation="8"/>', "exif": EXIF}, 6),
        ({}, 1),
    ],
)
def test_orientation_is_what_the_metadata_say_and_upright_where_they_say_nothing(info, found):
    assert orientation.of(info) == found


def test_a_cut_in_the_metadata_is_no_error():
    assert [orientation.of({"exif": EXIF[:length]}) for length in range(len(EXIF))] == [1] * 28 + [6] * 4


def test_a_table_of_entries_that_point_at_gigabytes_costs_nothing():
    entries = b"".join(struct.pack(">HHII", 0x9000 + number % 4096, 2, 1 << 22, 0) for number in range(65_535))
    table = b"MM\0*\0\0\0\x08\xff\xff" + entries + bytes(5 << 20)
    start = time.process_time()
    assert images.decode(h.small_png(h.chunk(b"eXIf", table))).shape == (32, 32, 3)
    assert time.process_time() - start < 1


def test_a_picture_at_the_limit_is_read():
    assert images.check_header(h.progressive_jpeg(8000, 14)).size == (8000, 8000)
    assert images.open_image(h.progressive_jpeg(96, 5000)).size == (96, 96)
    assert images.check_header(h.with_segments(h.segment(0xFE, b"x") * 900)).size == (32, 32)


def test_every_cut_of_a_jpeg_is_unreadable_or_whole():
    whole = h.jpeg()
    assert images.decode(whole).shape == (32, 32, 3)
    for length in range(len(whole)):
        with pytest.raises(Unreadable):
            images.decode(whole[:length])


def test_sixteen_bits_become_eight_by_their_upper_half():
    eight = np.asarray(h.picture())
    assert np.array_equal(images.decode(h.sixteen_bits(3)), eight)
    assert np.array_equal(images.decode(h.sixteen_bits(1))[..., 0], eight[..., 0])


def test_for_opencv_transparency_is_laid_on_white_and_a_plain_picture_keeps_its_bytes():
    for whole in (h.jpeg(), h.small_png(), h.encoded(h.picture(), "WEBP")):
        assert images.plain(whole) is whole
    for kind in ("PNG", "WEBP"):
        clear = h.encoded(h.picture(32, 4), kind, lossless=True)
        found = np.asarray(h.Image.open(h.io.BytesIO(images.plain(clear))))
        colours, alpha = np.split(np.asarray(h.picture(32, 4)).astype(float), [3], axis=-1)
        assert np.abs(found - (colours * alpha + 255 * (255 - alpha)) / 255).max() < 2
    assert images.plain(h.sixteen_bits(1)).startswith(b"P6")


def test_a_phones_two_pictures_are_one_jpeg():
    data = h.encoded(h.picture(), "MPO", save_all=True, append_images=[h.picture(16)])
    kept, extension, sizes = images.fitted(data, 256)
    assert (kept, extension, sizes["width"]) == (data, "jpg", 32)
    assert images.fitted(data, 8)[1] == "jpg"
