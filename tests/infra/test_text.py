import pytest

from infra import text

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (BOM, []),
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\n\n", ["a", ""]),
        (b"\n", [""]),
        (BOM + b"a\nb", ["a", "b"]),
        ("a\u2028b\u0085c\fd\ve\x1cf\nb".encode(), ["a\u2028b\u0085c\fd\ve\x1cf", "b"]),
        (b"a\rb\n", ["a\rb"]),
    ],
)
def test_lines_end_in_newlines_and_in_nothing_else(data: bytes, lines: list[str]) -> None:
    assert list(text.lines(data, "file")) == lines


def test_a_whole_text_is_what_was_written_but_for_its_mark() -> None:
    assert text.decoded(BOM + "naïve\r\n\u2028cat\n".encode(), "file") == "naïve\r\n\u2028cat\n"


@pytest.mark.parametrize("reads", [lambda *given: list(text.lines(*given)), text.decoded])
def test_what_is_not_utf_8_is_named_with_its_line_and_how_to_convert_it(reads) -> None:
    with pytest.raises(ValueError, match=r"^f\.txt, line 2: not UTF-8 \(.* at byte 3\); convert it with iconv -f WIND"):
        reads(b"a\ncaf\xe9 au lait\n", "f.txt")
    for data in ("a cat\n".encode("utf-16"), b"\xfe\xff" + "a cat\n".encode("utf-16-be")):
        with pytest.raises(ValueError, match=r"^f\.txt is UTF-16 and not UTF-8: convert it with iconv -f UTF-16"):
            reads(data, "f.txt")
