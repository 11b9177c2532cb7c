import os
import threading

import pytest

from infra import storage


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    return str(tmp_path / "store") if request.param == "disk" else f"memory://{tmp_path.name}"


def test_a_file_is_read_as_it_was_written(place):
    url = storage.join(place, "a", "b.json")
    storage.write_json(url, {"b": 1, "a": "ü"})
    assert storage.read_json(url) == {"a": "ü", "b": 1}
    assert storage.size(url) == len(storage.read(url))
    storage.write(url, b"other")
    assert storage.read(url) == b"other"


def test_only_the_first_create_wins(place):
    url = storage.join(place, "commits", "00001.json")
    assert storage.create(url, b"first")
    assert not storage.create(url, b"second")
    assert storage.create(url, b"first"), "of twins with equal bytes both have won"
    assert storage.read(url) == b"first"


def test_of_many_threads_that_create_one_file_one_wins(tmp_path):
    won = []
    threads = [
        threading.Thread(target=lambda n=n: won.append(storage.create(str(tmp_path / "x"), str(n).encode())))
        for n in range(12)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sum(won) == 1


def test_names_are_sorted_and_hide_unfinished_writes(place):
    assert storage.names(place) == []
    for name in ("b", "a"):
        storage.write(storage.join(place, name), b"")
    storage.write(storage.join(place, f"{storage.ATTEMPT}1-c"), b"half")
    assert storage.names(place) == ["a", "b"]


def test_every_file_under_a_folder_is_found(place):
    assert storage.find(place) == []
    for name in ("b/c/d", "b/a", "a"):
        storage.write(storage.join(place, name), b"")
    assert storage.find(place) == ["a", "b/a", "b/c/d"]
    assert storage.find(storage.join(place, "b")) == ["a", "c/d"]
    assert storage.exists(storage.join(place, "b"))
    assert not storage.exists(storage.join(place, "c"))


def test_upload_and_download_are_whole(place, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    storage.upload(source, storage.join(place, "big"))
    storage.download(storage.join(place, "big"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    storage.remove(storage.join(place, "big"))
    assert not storage.exists(storage.join(place, "big"))
    storage.remove(storage.join(place, "big"))


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        storage.write(str(tmp_path / "x"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_scheme_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="s3://bucket/folder or memory://"):
        storage.exists("ftp://host/x")
    with pytest.raises(ValueError, match=r"cannot store at https://\.\.\.: use") as refused:
        storage.exists("https://user:hunter2@host/x?token=hunter2")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ValueError, match="empty path"):
        storage.exists("")


@pytest.mark.parametrize("how", ["write", "create", "upload"])
def test_a_name_is_synchronised_with_its_folder(how: str, tmp_path, monkeypatch):
    synchronised = []
    monkeypatch.setattr(os, "fsync", lambda number: synchronised.append(os.fstat(number).st_ino))
    url, source = str(tmp_path / "a" / "b"), tmp_path / "source"
    source.write_bytes(b"x")
    {"write": storage.write, "create": storage.create, "upload": lambda url, _: storage.upload(source, url)}[how](
        url, b"x"
    )
    assert synchronised == [os.stat(url).st_ino, os.stat(tmp_path / "a").st_ino], "first the bytes, then their name"


def test_a_stamp_changes_with_its_file_and_with_nothing_else(place):
    assert storage.stamps(place) == {}
    for name in ("b/a", "a"):
        storage.write(storage.join(place, name), b"one")
    before = storage.stamps(place)
    assert list(before) == ["a", "b/a"]
    assert storage.stamps(place) == before
    storage.write(storage.join(place, "a"), b"two")
    after = storage.stamps(place)
    assert after["a"] != before["a"]
    assert after["b/a"] == before["b/a"]


def test_the_stamp_of_a_link_is_that_of_the_file_it_leads_to(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "store" / "a").write_bytes(b"one")
    (tmp_path / "links" / "a").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "links" / "b").symlink_to(tmp_path / "nothing")
    before = storage.stamps(str(tmp_path / "links"))
    os.utime(tmp_path / "store" / "a", ns=(1, 1))
    after = storage.stamps(str(tmp_path / "links"))
    assert before["a"] != after["a"] == "3 1"
    assert before["b"] == after["b"] == ""
