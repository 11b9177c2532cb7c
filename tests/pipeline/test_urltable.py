import csv
import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources.cc3m import Cc3m
from pipeline.sources.cc12m import Cc12m


def write(tmp_path, data, name="t.tsv"):
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def parquet(**columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def comma_separated(*rows):
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


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


def test_a_mark_in_front_and_letters_that_end_a_line_elsewhere_belong_to_no_caption_or_to_one(tmp_path):
    data = "\ufeffa cat\thttp://x/1\r\na\u2028dog\u0085\fb\thttp://x/2\n".encode()
    for name, body in (("t.tsv", data), ("t.tsv.gz", gzip.compress(data))):
        table = Cc3m(urls=write(tmp_path, body, name)).table()
        assert table["caption"].to_pylist() == ["a cat", "a\u2028dog\u0085\fb"]


WITH_HEADER = [
    ("t.csv", comma_separated(("URL", "TEXT", "width"), ("http://x/1", 'a "big", red\ncat', 3), ("http://x/2", "", 4))),
    ("t.csv", b'\xef\xbb\xbfcaption,url\r\n"a ""big"", red\ncat",http://x/1\r\n,http://x/2\r\n\r\n'),
    ("t.parquet", parquet(url=["http://x/1", "http://x/2"], text=['a "big", red\ncat', None], similarity=[0.1, 0.2])),
    ("t", parquet(TEXT=['a "big", red\ncat', ""], URL=["http://x/1", "http://x/2"])),
]


@pytest.mark.parametrize("source", [Cc3m, Cc12m])
@pytest.mark.parametrize(("name", "data"), WITH_HEADER, ids=["csv", "csv of Windows", "parquet", "parquet by content"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_a_table_with_a_header_is_read_by_its_names(tmp_path, name, data, source, packed):
    place = write(tmp_path, gzip.compress(data) if packed else data, f"{name}.gz" if packed else name)
    assert source(urls=place).table().to_pylist() == [
        {"row": 0, "caption": 'a "big", red\ncat', "url": "http://x/1"},
        {"row": 1, "caption": "", "url": "http://x/2"},
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"url,caption\n", "is empty"),
        ("t.csv", b"a,b\nc,d\n", r"has the columns a, b; .* one column is called url \(or URL\), one caption"),
        (
            "t.csv",
            b"url,caption,text\nhttp://x,b,c\n",
            "has the columns url, caption, text; .*: rename or drop",
        ),
        ("t.csv", b"url,caption\nhttp://x\n", "line 2: 1 columns where the header has 2"),
        ("t.csv", b"url,caption\n\nhttp://x,a\n", "line 2: 0 columns where the header has 2"),
        ("t.csv", b'url,caption\nhttp://x,"a\n', "not readable as csv"),
        ("t.csv", b"url,caption\nx,a\n", "line 2: 'x' is not an http"),
        ("t.csv", b"url,caption\nhttp://x,caf\xe9\n", "line 2: not UTF-8"),
        ("t.parquet", b"PAR1", "t.parquet: not a readable parquet file|t.parquet: .*[Pp]arquet"),
        ("t.parquet", parquet(url=["http://x/1", None], caption=["a", "b"]), "row 1: '' is not an http"),
        ("t.parquet", parquet(url=[["http://x/1"]], caption=["a"]), "t.parquet: "),
        ("t.tsv", b"caption\turl\na\thttp://x\n", r"line 1: 'url' is not an http.* a table with a header is a \.csv"),
        ("t.tsv.gz", gzip.compress(b"a\thttp://x\n", mtime=0)[:-9], "is a damaged gzip file"),
        ("t.tsv.zst", b"\x28\xb5\x2f\xfd...", "is a zstd file: unpack it"),
        ("t.tsv", "a\thttp://x\n".encode("utf-16"), "is UTF-16 and not UTF-8: convert it"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_can(tmp_path, name, data, message):
    with pytest.raises(ValueError, match=message) as refused:
        Cc3m(urls=write(tmp_path, data, name)).table()
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(ValueError, match="is a folder: --urls names one file"):
        Cc3m(urls=str(tmp_path)).table()
