import numpy as np
import pytest

from pipeline import images
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
    ):
        with pytest.raises(Unreadable) as refused:
            read(data())
        assert refused.value.outcome == outcome


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
