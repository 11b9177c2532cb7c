"""Where two recipes part, in words: for whoever gave a command again and is refused."""

from typing import Any


def first(found: Any, wanted: Any, name: str = "") -> str:
    """The first field that differs, by its dotted name: `its recipe.lr is 0.1, not 0.2`."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            if found.get(key) != wanted.get(key):
                return first(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    return f"its {name} is {found!r}, not {wanted!r}"


def refusal(url: str, found: Any, wanted: Any) -> str:
    """Why a folder made by the recipe `found` is not for `wanted`, and what to do.

    A recipe is {command: {..., "identity": {what: hash}}}; identity is what its input said when it was begun.
    """
    told = None
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys() and len(found) == 1:
        ((command, before),), ((_, now),) = found.items(), wanted.items()
        if isinstance(before, dict) and isinstance(now, dict):
            (was, before), (is_now, now) = (_parted(each) for each in (before, now))
            if before != now:
                told = f"was made by a different command ({first(before, now, command)})"
            elif was != is_now:
                names = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
                changed = " and ".join(name.removesuffix("_sha256") for name in names)
                told = f"was made from other input: {changed} changed since it was begun"
    told = told or "was made by a different command (see its recipe.json)"
    return f"{url} exists and {told}: choose another --out, or remove that folder"


def _parted(recipe: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(identity, all else)."""
    identity = recipe.get("identity")
    return (identity if isinstance(identity, dict) else {}), {k: v for k, v in recipe.items() if k != "identity"}
