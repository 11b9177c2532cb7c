import json
from pathlib import Path

import pytest

from infra.errors import Lost
from pipeline import prepare
from pipeline.dataset import Dataset
from pipeline.picturebook import server
from pipeline.preparation import Preparation
from pipeline.sources.cc3m import Cc3m
from pipeline.sources.picturebook import Picturebook
from pipeline.verification import Verification

ROWS, PORT = 300, 8931
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
    given = {"source": source, "rows_per_shard": 100, "timeout_seconds": 1.5, "threads": 16, "backend": "local"}
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

    @contextmanager
    def gone(*_, **__):
        yield f"127.0.0.1:{PORT + 1}"

    monkeypatch.setattr(server, "serving", gone)
    source = Picturebook(rows=10, port=PORT + 1)
    with pytest.raises(Lost, match=r"the source's own server at 127\.0\.0\.1:8932 is gone"):
        preparation(tmp_path / "set", source=source).run()
    assert not (tmp_path / "set" / "commits").exists()


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
