import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra import config, storage
from infra.errors import Lost
from pipeline import disjointness, prepare
from pipeline.dataset import Dataset
from pipeline.picturebook import server
from pipeline.preparation import Preparation
from pipeline.sources.cc3m import Cc3m
from pipeline.sources.picturebook import Picturebook
from pipeline.verification import Verification
from tests.support.drawn import drawn
from tests.support.ports import free_port

ROWS, PORT = 300, free_port()
CODES = {
    "ok": "success",
    "sluggish": "success",
    "not_found": "http_404",
    "server_error": "http_503",
    "slow": "timeout",
    "truncated": "truncated",
    "wrong_type": "not_an_image",
    "tiny": "too_small",
}


def preparation(out, **more):
    source = Picturebook(rows=ROWS, faults=0.3, port=PORT)
    given = {"source": source, "rows_per_shard": 100, "timeout_seconds": 4.0, "threads": 16, "backend": "local"}
    return Preparation(out=str(out), **(given | more))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "set"
    line = preparation(out).run()
    return Dataset.open(str(out)), line


def test_every_row_ends_as_the_server_meant_it(made):
    dataset, line = made
    found = {}
    for shard in dataset.shards:
        index = dataset.index(shard)
        found |= dict(zip(index["row"].to_pylist(), index["outcome"].to_pylist(), strict=True))
    meant = {row: CODES[server.outcome(0, row, server.Faults(total=0.3))] for row in range(ROWS)}
    assert found == meant
    assert sum(dataset.outcomes.values()) == ROWS
    assert len(dataset.outcomes) >= 6, "most kinds of fault occur"
    assert f"{dataset.samples:,} pairs of 300 rows" in line
    assert dataset.url in line


def test_a_worker_that_downloads_imports_neither_torch_nor_ray():
    """Though img2dataset does; and whoever imports that afterwards has it whole."""
    code = (
        "import sys; from pipeline.fetch import _img2dataset; _img2dataset(); "
        "print([name for name in ('torch', 'ray', 'pandas', 'webdataset', 'img2dataset') if name in sys.modules]); "
        "import img2dataset.downloader; print(img2dataset.downloader.Downloader, img2dataset.download)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = run.stdout.splitlines()
    assert first == "[]"
    assert second.startswith("<class 'img2dataset.downloader.Downloader'> <function download at ")


def test_a_repeated_download_gives_the_same_bytes(made, tmp_path):
    first, _ = made
    preparation(tmp_path / "again", threads=3).run()
    second = Dataset.open(str(tmp_path / "again"))
    assert second.digest == first.digest
    assert second.shards == first.shards
    assert second.outcomes == first.outcomes


def test_the_same_command_again_does_nothing_and_another_is_refused(made):
    dataset, _ = made
    assert preparation(dataset.url).run().startswith("nothing to do")
    with pytest.raises(ValueError, match="made by a different command"):
        preparation(dataset.url, rows_per_shard=50).run()


def test_a_dry_run_touches_nothing(tmp_path, capsys):
    line = preparation(tmp_path / "dry", dry_run=True).run()
    assert line.startswith("dry run: would fetch 300 rows in 3 shards")
    assert json.loads(capsys.readouterr().out)["source"]["plugin"] == "picturebook"
    assert not (tmp_path / "dry").exists()


def test_verify_names_each_damaged_shard(made, tmp_path):
    dataset, _ = made
    assert Verification(dataset=dataset.url, backend="local", decode=True).run().startswith("verified:")
    copy = tmp_path / "copy"
    import shutil

    shutil.copytree(dataset.url, copy)
    one, two, three = (copy / shard.name for shard in dataset.shards)
    data = bytearray(one.read_bytes())
    data[5000] ^= 1
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:-1024])
    three.unlink()
    with pytest.raises(Lost) as lost:
        Verification(dataset=str(copy), backend="local").run()
    said = str(lost.value)
    assert "3 of 3 shards are damaged" in said
    assert "shard 0 has" in said and "hash differs" in said
    assert "shard 1 has" in said and "bytes instead of" in said
    assert "shard 2 is missing" in said


def test_a_swapped_shard_is_found(made, tmp_path):
    import shutil

    dataset, _ = made
    shutil.copytree(dataset.url, tmp_path / "copy")
    one, two, _ = (tmp_path / "copy" / shard.name for shard in dataset.shards)
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    with pytest.raises(Lost, match="2 of 3 shards are damaged"):
        Verification(dataset=str(tmp_path / "copy"), backend="local").run()


def test_the_web_is_told_apart_from_this_machine(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("inside\thttp://127.0.0.1:9/x.jpg\nmetadata\thttp://169.254.169.254/latest\n")
    run = Preparation(source=Cc3m(urls=str(table)), out=str(tmp_path / "out"), backend="local")
    with pytest.raises(ValueError, match=r"not one of 2 rows could be used \({'refused_address': 2}\)"):
        run.run()
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_passing_causes_are_tried_again_and_others_are_not(tmp_path):
    import http.server
    import threading

    from pipeline.picturebook.draw import encoded

    asked: dict[str, int] = {}

    class Flaky(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] = asked.get(self.path, 0) + 1
            if self.path == "/gone" or asked[self.path] == 1:
                self.send_error(404 if self.path == "/gone" else 503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encoded(0, 1, 32))

        def log_message(self, *_):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    table = tmp_path / "t.tsv"
    table.write_text("".join(f"c\thttp://127.0.0.1:{web.server_port}/{name}\n" for name in ("gone", "busy")))
    Preparation(
        source=Cc3m(urls=str(table)), out=str(tmp_path / "out"), backend="local", allow_private=True, retries=2
    ).run()
    web.shutdown()
    web.server_close()
    assert Dataset.open(str(tmp_path / "out")).outcomes == {"http_404": 1, "success": 1}
    assert asked == {"/gone": 1, "/busy": 2}


def test_shards_are_read_by_plain_webdataset(made):
    import webdataset

    dataset, _ = made
    urls = [dataset.tar_url(shard) for shard in dataset.shards]
    seen = [sample["json"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert [json.loads(record)["row"] for record in seen] == dataset.index_of_samples(["row"])["row"].to_pylist()
    assert all(Path(url).exists() for url in urls)


def test_rows_that_failed_because_the_sources_own_server_died_are_not_committed(tmp_path, monkeypatch):
    from contextlib import contextmanager

    port = free_port()

    @contextmanager
    def gone(*_, **__):
        yield f"127.0.0.1:{port}"

    monkeypatch.setattr(server, "serving", gone)
    source = Picturebook(rows=10, port=port)
    with pytest.raises(Lost, match=rf"the source's own server at 127\.0\.0\.1:{port} is gone"):
        preparation(tmp_path / "set", source=source).run()
    assert not (tmp_path / "set" / "commits").exists()


# Rows of other datasets


def rows_of(source, *others):
    """The row ids that are left."""
    work = Preparation(source=source, out="unused", disjoint_from=tuple(others))
    whole = source.table()
    there = disjointness.others(source, source.identity(whole), work.disjoint_from)
    return work._chosen(whole, there)["row"].to_pylist(), [other.lineage() for other in there]


def test_rows_of_one_book_are_compared_by_number_whatever_else_differs(made):
    dataset, _ = made
    left, lineage = rows_of(Picturebook(rows=50, start=ROWS - 20, picture_size=16, faults=0, port=1), dataset.url)
    assert left == list(range(ROWS, ROWS + 30)), "failed rows are left out too"
    assert lineage == [dataset.digest], "recipes of such datasets are what they were"


def test_rows_of_another_book_are_compared_by_url(made):
    dataset, _ = made
    left, lineage = rows_of(Picturebook(rows=50, book_seed=1, port=PORT), dataset.url)
    assert left == list(range(50))
    assert lineage[0]["digest"] == dataset.digest and lineage[0]["by"] == "url"


def test_rows_of_another_url_table_are_compared_by_url(made, tmp_path):
    dataset, _ = made
    book = list(server.table(0, 0, ROWS, PORT))
    table = tmp_path / "shuffled.tsv"
    new = [("new", "http://127.0.0.1:9/new.jpg"), ("secret", "http://user:word@127.0.0.1:9/x.jpg")]
    table.write_text("".join(f"{caption}\t{url}\n" for caption, url in (*new, *book[::-1])))
    assert rows_of(Cc3m(urls=str(table)), dataset.url)[0] == [0, 1]


def test_a_copy_of_a_url_table_is_the_same_table(tmp_path):
    (tmp_path / "one.tsv").write_text("a cat\thttp://127.0.0.1:9/x.jpg\na dog\thttp://127.0.0.1:9/x.jpg\n")
    (tmp_path / "two.tsv").write_bytes((tmp_path / "one.tsv").read_bytes())
    one, two = (Cc3m(urls=str(tmp_path / name)) for name in ("one.tsv", "two.tsv"))
    made = drawn(str(tmp_path / "made"), 1, 1)
    recipe = {"source": config.to_json(one), "identity": one.identity(one.table())}
    storage.write_json(f"{made.url}/recipe.json", {"prepare": recipe})
    assert rows_of(two, made.url)[0] == [1], "by row id: two rows may have one url"


def test_a_changed_url_table_is_other_input(made, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("a cat\thttp://127.0.0.1:9/x.jpg\n")
    run = Preparation(source=Cc3m(urls=str(table)), out=str(tmp_path / "out"), backend="local")
    with pytest.raises(ValueError, match="not one of 1 rows"):
        run.run()
    table.write_text("a dog\thttp://127.0.0.1:9/x.jpg\n")
    with pytest.raises(ValueError, match="out exists and was made from other input: urls changed since it was begun"):
        run.run()


def test_a_refusal_says_what_differs(made):
    dataset, _ = made
    with pytest.raises(ValueError, match=r"different command \(its prepare\.rows_per_shard is 100, not 50\): choose"):
        preparation(dataset.url, rows_per_shard=50).run()


def test_the_recipe_of_a_picture_book_is_what_it_was(made):
    """Another one would refuse every dataset that was begun before."""
    recipe = storage.read(f"{made[0].url}/recipe.json").replace(str(PORT).encode(), b"8931")
    recipe = recipe.replace(b'"timeout_seconds": 4.0', b'"timeout_seconds": 1.5')
    assert hashlib.sha256(recipe).hexdigest() == "1f6f668b9e0e110bb49f2f3b360f9618b41d4b92140a44b5095be59bdd61ccce"


def test_urls_of_a_private_network_are_refused_with_the_flag_that_lets_them_in(tmp_path, capsys):
    table = tmp_path / "urls.tsv"
    table.write_text("".join(f"caption {row}\thttp://127.0.0.1:9/{row}.jpg\n" for row in range(3)))
    out = str(tmp_path / "out")
    with pytest.raises(SystemExit) as ended:
        prepare.main(["cc3m", "--urls", str(table), "--out", out, "--backend", "local"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "3 urls lead to private or loopback addresses, which are refused" in said and "--allow-private" in said
    with pytest.raises(SystemExit):
        prepare.main(["cc3m", "--urls", str(table), "--out", f"{out}-2", "--backend", "local", "--allow-private"])
    said = capsys.readouterr().err
    assert "{'connection': 3}" in said and "--allow-private" not in said
