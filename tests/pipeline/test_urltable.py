import pytest

from pipeline.sources.cc3m import Cc3m
from pipeline.sources.cc12m import Cc12m


def write(tmp_path, data):
    (tmp_path / "t.tsv").write_bytes(data)
    return str(tmp_path / "t.tsv")


def test_rows_are_lines(tmp_path):
    table = Cc3m(urls=write(tmp_path, "a ü cat\thttp://x/1\na dog\thttps://x/2\n".encode())).table()
    assert table.to_pylist() == [
        {"row": 0, "caption": "a ü cat", "url": "http://x/1"},
        {"row": 1, "caption": "a dog", "url": "https://x/2"},
    ]
    turned = Cc12m(urls=write(tmp_path, b"http://x/1\ta cat\r\n")).table()
    assert turned.to_pylist() == [{"row": 0, "caption": "a cat", "url": "http://x/1"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"a cat\thttp://x/1\na dog\n", "line 2: 1 columns where caption TAB url is expected"),
        (b"a\tb\thttp://x\n", "line 1: 3 columns"),
        (b"caf\xe9\thttp://x\n", "line 1: not UTF-8"),
        (b"http://x\ta cat\n", "line 1: 'a cat' is not an http"),
        (b"passwords\tfile:///etc/passwd\n", "is not an http"),
        (b"scripts\tjavascript:alert(1)\n", "is not an http"),
        (b"pipes\tpipe:cat /etc/passwd\n", "is not an http"),
        (b"a\0b\thttps\0://x\n", "is not an http"),
        (b"long\t" + b"x" * 100_000 + b"\n", "line 1: 'x{200}' is not an http"),
    ],
)
def test_a_bad_table_names_the_line(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        Cc3m(urls=write(tmp_path, data)).table()


def test_a_capital_scheme_is_one_too_and_a_secret_is_not_printed(tmp_path):
    assert Cc3m(urls=write(tmp_path, b"a cat\tHTTPS://x/1\n")).table()["url"].to_pylist() == ["HTTPS://x/1"]
    with pytest.raises(ValueError, match="is not an http") as refused:
        Cc3m(urls=write(tmp_path, b"a cat\tftp://user:s3cr3t@x/1?token=t0ken\n")).table()
    assert "s3cr3t" not in str(refused.value) and "t0ken" not in str(refused.value)


def test_a_missing_table_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match="no url table at"):
        Cc3m(urls=str(tmp_path / "nothing.tsv")).table()
