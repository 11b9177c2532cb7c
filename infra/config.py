"""Frozen dataclasses are the configuration: read from a command line by tyro, written to and read back from JSON.

A plugin (an attack, an objective, a source) is written by its plugin name and fields, never by an import path:
`{"plugin": "badnet", "size": 6}`. Its base class says in `FOLDERS` where such names are looked up.
"""

import contextlib
import dataclasses
import inspect
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from infra import plugins, storage
from infra.errors import interrupted, refuse

T = TypeVar("T")
HELP_ALL = "--help-all"


class Seldom:
    """`Annotated[int, Seldom]`: a flag like any other, which --help leaves out and --help-all shows."""


def later(default: Any) -> Any:
    """The default of a field that came later: JSON leaves it out while the field has it, so that what was made before
    there was such a field is still what the same command makes."""
    return dataclasses.field(default=default, metadata={"later": True})


def to_json(value: Any, name: str = "") -> Any:
    """A configuration object as plain JSON values. Raises ValueError for what JSON cannot hold; nan and infinity too.

    name: of the field that holds it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        tag = {"plugin": plugins.name_of(value)} if hasattr(value, "FOLDERS") else {}
        names = [
            field.name
            for field in dataclasses.fields(value)
            if not ("later" in field.metadata and getattr(value, field.name) == field.default)
        ]
        return tag | {field: to_json(getattr(value, field), field) for field in names}
    if isinstance(value, (list, tuple)):
        return [to_json(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item, str(key)) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name or 'a setting'} must be a finite number, not {value}")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"a configuration cannot hold {value!r} of type {type(value).__name__}")


def from_json(kind: Any, data: Any) -> Any:
    """The object of type `kind` that `to_json` wrote; equal to the original.

    Raises ValueError for an unknown field, a missing one, a value of the wrong type or an unknown plugin.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(data, dict):
            raise ValueError(f"{kind.__name__} is read from a JSON object, not from {data!r}")
        data = dict(data)
        if hasattr(kind, "FOLDERS"):
            if "plugin" not in data:
                raise ValueError(f"{kind.__name__} needs a field 'plugin' that names it, in {data!r}")
            kind = plugins.load(kind.FOLDERS, data.pop("plugin"), kind)
        hints = typing.get_type_hints(kind)
        known = {field.name for field in dataclasses.fields(kind)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}; it has: {', '.join(sorted(known))}")
        try:
            return kind(**{name: from_json(hints[name], item) for name, item in data.items()})
        except TypeError as error:
            raise ValueError(f"{kind.__name__} cannot be read: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return from_json(arguments[0], data)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return from_json(next(part for part in arguments if part is not type(None)), data)
    if (origin is tuple and not isinstance(data, (list, tuple))) or (origin is dict and not isinstance(data, dict)):
        raise ValueError(f"{data!r} is not {'a list' if origin is tuple else 'an object'}")
    if origin is tuple:
        inner = [arguments[0]] * len(data) if arguments[1:] == (...,) else list(arguments)
        return tuple(from_json(part, item) for part, item in zip(inner, data, strict=True))
    if origin is typing.Literal:
        if data not in arguments:
            raise ValueError(f"{data!r} is not one of {', '.join(map(str, arguments))}")
        return data
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is Any or (isinstance(kind, type) and isinstance(data, kind)):
        return data
    raise ValueError(f"{data!r} is not of type {getattr(kind, '__name__', kind)}")


def read(kind: type[T], url: str) -> T:
    """The object of type `kind` that a file holds as JSON. Raises ValueError that names the file."""
    said = storage.read_json(url)
    try:
        return from_json(kind, said)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


def parse(
    config: type[T],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    plugin: str | None = None,
    preset: Callable[[str], dict[str, Any]] | None = None,
) -> T:
    """Read `config` from a command line. With `plugin`, the first word picks the plugin for that field.

    `preset` turns the value of `--preset NAME` into defaults for other fields. A ValueError from a constructor
    is the user's: one line on stderr and exit status 2, like every other bad argument.
    """
    import tyro

    words = [_at_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    everything, words = HELP_ALL in words, ["--help" if word == HELP_ALL else word for word in words]
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(config, include_extras=True)
    overrides: dict[str, Any] = {}
    try:
        if plugin is not None:
            base = hints[plugin]
            known = plugins.names(base.FOLDERS)
            if not words or words[0].startswith("-"):
                _help_on_plugins(words, prog, description, plugin, known)
            chosen = plugins.load(base.FOLDERS, words.pop(0), base)
            prog = f"{prog} {plugins.name_of(chosen)}"
            hints[plugin] = typing.Annotated[chosen, tyro.conf.arg(name="")]
        if preset is not None:
            overrides = preset(str(_value_of("--preset", words) or fields["preset"].default))
        # tyro builds a twin without checks; the real class is built from its values, so that every
        # complaint of a constructor takes the same way out.
        namespace: dict[str, Any] = {"__annotations__": {}, "__doc__": config.__doc__, "__post_init__": lambda _: None}
        for name, field in fields.items():
            namespace["__annotations__"][name] = hints[name]
            if name in overrides:
                namespace[name] = overrides[name]
            elif field.default is not dataclasses.MISSING:
                namespace[name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                namespace[name] = dataclasses.field(default_factory=field.default_factory)
        twin: Any = dataclasses.dataclass(frozen=True, kw_only=True)(type(config.__name__, (config,), namespace))
        hidden = contextlib.nullcontext(0) if everything or not {"-h", "--help"} & {*words} else _seldom_hidden(twin)
        with hidden as count:
            more = f"\n\n{count} more flags, seldom needed: {HELP_ALL}" if count else ""
            parsed = tyro.cli(twin, args=words, prog=prog, description=description + more)
        to_json(parsed)  # a number that is none gives no answer to any comparison below
        return config(**{name: getattr(parsed, name) for name in fields})
    except ValueError as error:
        refuse(error)
    except KeyboardInterrupt:
        raise SystemExit(interrupted()) from None


@contextlib.contextmanager
def _seldom_hidden(config: type) -> Iterator[int]:
    """While open, tyro leaves out what is `Seldom` in a dataclass and in those that it holds; yields how many.

    tyro's own marker would take such a flag away altogether, not from the help alone.
    """
    import tyro

    marked: list[tuple[type, str, Any]] = []
    waiting = [config]
    while waiting:
        one = waiting.pop()
        for name, hint in typing.get_type_hints(one, include_extras=True).items():
            owner = next(cls for cls in one.__mro__ if name in inspect.get_annotations(cls))
            plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
            if Seldom in getattr(hint, "__metadata__", ()):
                marked.append((owner, name, owner.__annotations__[name]))
                owner.__annotations__[name] = typing.Annotated[hint, tyro.conf.Suppress]
            elif isinstance(plain, type) and dataclasses.is_dataclass(plain):
                waiting.append(plain)
    try:
        yield len(marked)
    finally:
        for owner, name, hint in marked:
            owner.__annotations__[name] = hint


def _at_home(word: str) -> str:
    """`--out=~/x` with the home folder in it: a shell puts it in after a space only."""
    flag, equals, value = word.partition("=")
    return flag + equals + os.path.expanduser(value) if flag.startswith("--") else word


def _value_of(flag: str, words: list[str]) -> str | None:
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
    return None


def _help_on_plugins(words: list[str], prog: str, description: str, plugin: str, known: list[str]) -> typing.NoReturn:
    usage = f"usage: {prog} {plugin.upper()} [options]\n\n{plugin.upper()} is one of: {', '.join(known)}"
    if words and words[0] in ("-h", "--help"):
        print(f"{usage}\n\n{description.strip()}\n\nOptions of one of them: {prog} {known[0]} --help")
        raise SystemExit(0)
    refuse(f"the first word must name the {plugin}, one of: {', '.join(known)} (see {prog} --help)")
