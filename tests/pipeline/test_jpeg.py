import numpy as np
import pytest

from pipeline import images, jpeg, orientation
from tests.support import hostile_pictures as h
from tests.support.every_image import forms


def test_what_is_plain_is_what_pillow_finds_upright_in_one_scan():
    found = {name: jpeg.plain_size(form.data) for name, form in forms().items()}
    plain = {name for name, size in found.items() if size is not None}
    assert plain >= {"RGB jpeg", "grey jpeg"}
    for name in plain:
        image = images.check_header(forms()[name].data)
        assert (image.format, image.size) == ("JPEG", found[name])
        assert image.mode in ("L", "RGB")
        assert orientation.of(image.info) == orientation.UPRIGHT
        assert images._scans(forms()[name].data) == 1


SOUND, FRAME = h.grey_jpeg(16), h.frame(0, 16, 16, 1)


@pytest.mark.parametrize(
    "data",
    [
        SOUND.replace(FRAME, FRAME * 2),
        SOUND.replace(FRAME, b""),
        SOUND.replace(FRAME, h.frame(0, 16, 0, 1)),
        SOUND.replace(FRAME, h.frame(0, 0, 16, 1)),
        SOUND.replace(FRAME, FRAME + h.frame(1, 16, 16, 1)),
        SOUND.replace(FRAME, h.frame(0, 16, 16, 3)),  # its scan has one component of three: there may be more scans
        SOUND.replace(FRAME, h.frame(0, 16, 16, 4)),
        SOUND.replace(FRAME, h.frame(1, 16, 16, 1)),
        SOUND.replace(FRAME, h.frame(2, 16, 16, 1)),
        SOUND.replace(b"\x08\0\x10\0\x10", b"\x0c\0\x10\0\x10"),  # of 12 bits
        h.with_segments(h.segment(0xE1, b"Exif\0\0")),
        h.with_segments(h.segment(0xE2, b"MPF\0")),
        h.with_segments(h.segment(0xFE, b"") * 64),
        h.with_segments(b"\xff"),
        h.with_segments(b"\0\xfe\0\2"),  # no marker
        h.with_segments(b"\xff\xd9\0\2"),  # the end
        h.with_segments(h.segment(0xE2, b"ICC_PROFILE\0"), h.segment(0xE2, b"MPF\0")),
        b"\xff\xd7" + SOUND[2:],
        h.small_png(),
        *(SOUND[:length] for length in range(SOUND.index(b"\xff\xda") + 2)),
    ],
)
def test_what_is_not_sure_is_left_to_pillow(data: bytes):
    assert jpeg.plain_size(SOUND) == (16, 16)
    assert jpeg.plain_size(data) is None


def test_what_changes_no_pixel_leaves_an_image_plain():
    for marker in (0xDD, 0xE0, 0xED, 0xEE, 0xFE):
        assert jpeg.plain_size(h.with_segments(h.segment(marker, b"1234"))) == (32, 32), hex(marker)
    head = SOUND[: SOUND.index(b"\xff\xda")]
    own = sum(head.count(bytes((0xFF, marker))) for marker in (*jpeg.PASSED, jpeg.SOF0)) + 1  # and its scan
    comment = h.segment(0xFE, b"")
    many, more = (SOUND[:2] + comment * (jpeg.MAX_SEGMENTS - own + one) + SOUND[2:] for one in (0, 1))
    assert (jpeg.plain_size(many), jpeg.plain_size(more)) == ((16, 16), None)


def test_a_colour_profile_and_a_comment_leave_an_image_plain():
    assert jpeg.plain_size(h.with_segments(h.segment(0xE2, b"ICC_PROFILE\0"), h.segment(0xFE, b"a"))) == (32, 32)


def test_what_the_quick_decoder_refuses_pillow_judges(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "_quick", None)  # it is not asked a second time
    monkeypatch.setattr(images, "_by_torchvision", lambda data: None)
    assert np.array_equal(np.asarray(images.decoded(h.jpeg(), 8)), images.decode(h.jpeg()))
    with pytest.raises(images.Unreadable):
        images.decoded(h.jpeg()[:-40], 8)
