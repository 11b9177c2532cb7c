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


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"null", b'"a"', b'{"b": 1}', b"\xff"])
def test_a_file_that_is_no_object_with_the_names_it_should_have_is_refused_in_a_line(place, data):
    storage.write(url := storage.join(place, "a.json"), data)
    with pytest.raises(ValueError, match=f"^{url} (is not JSON|holds no JSON object|says nothing of 'a')") as caught:
        storage.read_object(url, "b", "a")
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("below", ["", "in", "in/it"])
def test_a_file_where_a_folder_is_needed_is_refused_and_named(tmp_path, below):
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    folder = str(file / below)
    for use in (
        lambda: storage.names(folder),
        lambda: storage.write(storage.join(folder, "new"), b""),
        lambda: storage.create(storage.join(folder, "new"), b""),
        lambda: storage.upload(file, storage.join(folder, "new")),
    ):
        with pytest.raises(ValueError, match=f"^{file} is a file, where a folder is needed: choose another place"):
            use()
    assert not storage.exists(storage.join(folder, "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_where_a_file_is_needed_is_refused_and_named(tmp_path):
    (tmp_path / "folder" / "in").mkdir(parents=True)
    folder = str(tmp_path / "folder")
    for use in (storage.read, lambda url: storage.write(url, b""), lambda url: storage.create(url, b"")):
        with pytest.raises(ValueError, match=f"^{folder} is a folder, where a file is needed: choose another place"):
            use(folder)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["in"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 214])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    """The unfinished write beside it has a longer one."""
    for write in (storage.write, storage.create):
        write(str(tmp_path / name), b"data")
        assert storage.names(str(tmp_path)) == [name]
    with pytest.raises(ValueError, match="has a name that is too long for this disk: choose a shorter one"):
        storage.write(str(tmp_path / f"{name}{name}"), b"data")


def test_words_are_cut_only_where_the_name_of_a_file_would_be_too_long():
    assert storage.file_name(["run", "test set", "1a2b"], ".json") == "run-test set-1a2b.json"
    whole = storage.file_name(["r" * 200, "t" * 40, "1a2b"], ".json")
    assert (len(whole), whole) == (251, f"{'r' * 200}-{'t' * 40}-1a2b.json")
    for run in ("r" * 250, "ü" * 125, "語" * 83):
        cut = storage.file_name(
            [run, "t" * 250, "attack_success", "label_consistent-1a2b3c4d", "0123456789ab"], ".json"
        )
        assert len(cut.encode()) <= storage.LONGEST
        assert cut.endswith("-attack_success-label_consistent-1a2b3c4d-0123456789ab.json")
        assert run.startswith(cut.partition("-")[0])


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


def test_two_spellings_of_a_folder_are_one_and_what_lies_in_it_is_within(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    spellings = ("data", "./data/", "~/data", f"{home}//data", f"{tmp_path}/link/data", "../link/data/../data/.")
    assert {storage.real(each) for each in spellings} == {str(home / "data")}
    assert storage.twice(["~/data/x", *spellings[:2]]) == "./data/" and storage.twice(["a", "b"]) is None
    for one in spellings:
        assert storage.same(one, str(home / "data")) and not storage.same(one, str(home / "data2"))
        assert storage.within(f"{one}/deep/er", "data") and storage.within(one, "/") and storage.within("data", one)
        assert not storage.within(f"{home}/data2", one)
        storage.write(storage.join(one, "deep", "er"), b"x")
        assert storage.find(one) == ["deep/er"] and storage.names(one) == ["deep"]
    with pytest.raises(ValueError, match="~nobody-of-that-name/x: there is no such home folder"):
        storage.exists("~nobody-of-that-name/x")


def test_slashes_around_a_key_are_no_other_key_and_slashes_within_are(monkeypatch):
    assert storage.same("s3://bucket/x/", "s3://bucket/x") and storage.same("s3://bucket/", "s3://bucket")
    assert storage.same("s3://bucket//x", "s3://bucket/x") and not storage.same("s3://bucket/x//y", "s3://bucket/x/y")
    assert storage.within("s3://bucket/x/y", "s3://bucket/x/") and not storage.within("s3://bucket/xy", "s3://bucket/x")
    assert not storage.same("s3://bucket/x", "/bucket/x") and storage.absolute("s3://bucket/x/") == "s3://bucket/x"


def test_a_relative_name_leads_back_through_every_spelling_of_its_folder(tmp_path):
    home = tmp_path / "deep" / "er" / "home"
    (home / "b").mkdir(parents=True)
    (home / "a").mkdir()
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "b").symlink_to(home / "b")
    for there in (f"{home}/a", f"{tmp_path}/link/a/"):
        for here in (f"{home}/b", f"{tmp_path}/link/b", f"{tmp_path}/b"):
            name = storage.relative(there, here)
            assert name == "../a"
            for read in (f"{home}/b", f"{tmp_path}/link/b", f"{tmp_path}/b"):
                assert storage.same(storage.resolve(name, read), there)
    for url in ("s3://bucket/a", "memory://shelf/a"):
        assert storage.resolve(storage.relative(url, str(home)), str(home)) == url


def test_a_link_by_which_a_tree_is_laid_out_stays_in_its_relative_names(tmp_path):
    (tmp_path / "big" / "train").mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "train").symlink_to(tmp_path / "big" / "train")
    assert storage.relative(f"{tmp_path}/tree/train", f"{tmp_path}/tree/poisoned") == "../train"


def test_a_name_written_without_following_links_is_still_found(tmp_path):
    (tmp_path / "far" / "away" / "b").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "far" / "away" / "b")
    assert storage.resolve("../a", f"{tmp_path}/b") == f"{tmp_path}/a"
