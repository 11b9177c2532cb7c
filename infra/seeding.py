"""Randomness by meaning: every random choice names what it is for.

`rng(seed, "order", epoch)` is the same generator on every machine, in any order of calls and with any
number of workers. `hash64` is the same idea for millions of rows at once: sort by it and take the lowest.
"""

import hashlib

import numpy as np

Label = int | str


def digest64(seed: int, *labels: Label) -> int:
    """A 64-bit number in [0, 2**64) that depends on `seed` and every label, with its type and position."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (int(seed), *map(_plain, labels)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rng(seed: int, *labels: Label) -> np.random.Generator:
    """A generator of its own for one purpose, e.g. `rng(seed, "trigger", row, "position")`."""
    return np.random.Generator(np.random.PCG64(digest64(seed, *labels)))


def hash64(seed: int, purpose: str, ids: np.ndarray) -> np.ndarray:
    """One 64-bit hash per id, without a Python loop.

    ids: int64 or uint64 (n,). Returns uint64 (n,). The finaliser of splitmix64 (Steele, Lea, Flood 2014)
    over `ids` keyed by (seed, purpose): a bijection of the id, so distinct ids never tie.
    """
    with np.errstate(over="ignore"):
        x = np.asarray(ids).astype(np.uint64) + np.uint64(digest64(seed, purpose))
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _plain(label: object) -> Label:
    """numpy integers count as ints: a row id read from parquet and one typed in a test mean the same."""
    if isinstance(label, (bool, float)) or not isinstance(label, (int, str, np.integer)):
        raise ValueError(f"a random label is an int or a str, not {label!r}")
    return int(label) if isinstance(label, (int, np.integer)) else label
