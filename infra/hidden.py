"""Files that a system or an editor leaves beside data: they are never data, wherever they lie."""

_LEFT = ("__macosx", "thumbs.db", "desktop.ini")


def is_hidden(path: str) -> bool:
    """Whether a file is one of those, or lies in such a folder: .DS_Store, ._photo.jpg, .ipynb_checkpoints/, __MACOSX/.

    path: relative to the folder, or the tar, that was named; its parts are parted by slashes.
    """
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.casefold() in _LEFT for part in path.split("/")
    )


def said(count: int, where: str) -> str:
    """That so many were passed over, in one line."""
    return f"passed over {count:,} hidden file{'s' if count != 1 else ''} in {where} (dot files, __MACOSX, Thumbs.db)"
