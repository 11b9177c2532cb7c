"""The file name is the registry: a folder of plugins holds one class of its base type per file, and nothing else."""

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PACKAGES = ("pipeline", "poison", "train", "defense", "eval", "infra")


def names(folders: tuple[str, ...]) -> list[str]:
    """Plugin names in packages such as `poison.attacks`, sorted."""
    return sorted(_homes(folders))


def load(folders: tuple[str, ...], name: str, base: type[T]) -> type[T]:
    """The class of plugin `name`. Raises ValueError that lists what exists."""
    homes = _homes(folders)
    known = sorted(homes)
    if name not in known:
        kind = base.__name__.lower()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (perhaps you meant {near[0]!r})" if near else ""
        raise ValueError(f"no {kind} is named {name!r}{hint}; there are: {', '.join(known)}")
    module = importlib.import_module(f"{homes[name]}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{homes[name]}.{name} must define one {base.__name__}, it defines {len(found)}"
    assert dataclasses.is_dataclass(found[0]), f"{found[0].__name__} in {homes[name]}.{name} must be a dataclass"
    return found[0]


def name_of(plugin: object) -> str:
    """The name under which `load` finds this plugin (an instance or a class)."""
    cls = plugin if isinstance(plugin, type) else type(plugin)
    return cls.__module__.rsplit(".", 1)[-1]


def sources(plugin: type) -> list[Path]:
    """The files of ours that a plugin's class runs on: its module, its bases', and all that these import, at any depth.

    Read from the text of the files, so that an import inside a function counts, and nothing needs to be loaded.
    """
    found: dict[str, Path] = {}
    waiting = [cls.__module__ for cls in plugin.__mro__]
    while waiting:
        name = waiting.pop()
        if name in found or (path := _file(name)) is None:
            continue
        found[name] = path
        waiting += _imported(path)
    return [found[name] for name in sorted(found)]


@functools.cache  # every cell of an evaluation asks; what this process has loaded does not change either
def _imported(path: Path) -> list[str]:
    """What may be modules among the names that a file imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def _file(module: str) -> Path | None:
    """The file of a module of ours; None for any other name."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a name in a module, and no module
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _homes(folders: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in folders:
        for module in pkgutil.iter_modules(importlib.import_module(folder).__path__):
            assert module.name not in found, f"{folder} and {found[module.name]} both define {module.name!r}"
            found[module.name] = folder
    return found
