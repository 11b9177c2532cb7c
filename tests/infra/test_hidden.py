import pytest

from infra import storage
from infra.hidden import is_hidden


@pytest.mark.parametrize(
    "path",
    [
        ".DS_Store",
        "._cat.jpg",
        "cats/._cat.jpg",
        ".ipynb_checkpoints/cat.jpg",
        "a/.git/b/cat.jpg",
        "__MACOSX/cats/cat.jpg",
        "./__MACOSX/cat.jpg",
        "cats/Thumbs.db",
        "desktop.ini",
    ],
)
def test_what_systems_and_editors_leave_behind_is_hidden(path: str) -> None:
    assert is_hidden(path)


@pytest.mark.parametrize("path", ["cat.jpg", "./cat.jpg", "a.b/cat.jpg", "thumbs/db.jpg"])
def test_and_nothing_else_is(path: str) -> None:
    assert not is_hidden(path)


def test_they_are_in_nobodys_way(tmp_path) -> None:
    from pipeline import dataset

    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "._scores.json").write_bytes(b"")
    assert storage.names(str(tmp_path)) == []
    assert storage.names(str(tmp_path), hidden=True) == [".DS_Store", "._scores.json"]
    dataset.claim(str(tmp_path), {"drawn": 1})  # a folder that a Finder looked into is as good as a new one
