"""The preview of poisoned pairs, as a report shows it. Nothing else of the report knows how a preview is kept."""

from infra import storage
from poison.sheets import layout, previews
from poison.sheets.layout import Shown


def read(url: str) -> list[Shown]:
    """The pairs of a preview's folder, images small enough for a page.

    Raises ValueError where there is no complete preview, Damaged where it is not what we write.
    """
    previews.refuse_image("--preview", url)
    return [layout.shrunk(pair) for pair in previews.read(storage.absolute(url))]
