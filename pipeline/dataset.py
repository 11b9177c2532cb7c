"""A dataset folder: shards, their indexes, their commits, and a manifest written last.

    shards/00042-1a2b3c4d.tar       named by content: a late duplicate attempt can neither overwrite nor differ unseen
    index/00042-1a2b3c4d.parquet    pipeline.shards.INDEX
    commits/00042.json              proof that the shard is whole; created exclusively, the first one wins
    shards.parquet                  one row a shard, made from the commits alone
    mask.parquet                    where pairs of these shards are left out: pipeline.mask.MASK
    dataset.json                    written last: its presence means complete

A shard lies relative to a base. Base 0 is the folder itself; others are folders of other datasets, so that a poisoned
dataset holds only the shards it rewrote.
"""

import errno
import hashlib
import io
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import differences, hidden, log, storage
from infra.errors import Damaged, Lost
from pipeline import foreign, sanity, shards, testsets
from pipeline import mask as masks
from pipeline.shards import Written

FORMAT = 1
_SHARD = pa.schema(
    [
        ("id", pa.int32()),
        ("base", pa.int32()),
        ("name", pa.string()),
        ("index_base", pa.int32()),
        ("index_name", pa.string()),
        ("samples", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("xxh3", pa.string()),
        ("index_sha256", pa.string()),
        ("content_sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Shard:
    """One shard as the manifest lists it. `name`, `index_name`: paths relative to their bases; bytes of the tar.

    samples: pairs to be read; those that the mask leaves out are in the tar and not counted.
    """

    id: int
    base: int
    name: str
    index_base: int
    index_name: str
    samples: int
    bytes: int
    sha256: str
    xxh3: str
    index_sha256: str
    content_sha256: str


@dataclass(frozen=True)
class Dataset:
    """A complete dataset. Cheap to hold and to send to a worker: shards and indexes are read when asked for.

    classes: of labelled images, by label: their names, or their numbers where they have none; () for pairs.
    mask: pipeline.mask.MASK, the pairs that are left out; None for none.
    """

    url: str
    digest: str
    samples: int
    bases: tuple[str, ...]
    shards: tuple[Shard, ...]
    contains_poison: bool
    outcomes: dict[str, int]
    classes: tuple[str, ...] = ()
    mask: pa.Table | None = None

    @staticmethod
    def open(url: str, labelled: bool = False, max_bad_share: float = foreign.MAX_BAD_SHARE) -> "Dataset":
        """The dataset at a folder; a bare folder of foreign tars is indexed on first sight, into our own cache.

        labelled: of images with labels, a split as pipeline.testsets lays it out. It is asked for by name, so that
        nobody learns from, or poisons, captions that are not there. max_bad_share: of the samples of foreign tars,
        which may be unusable; they are counted as outcomes.

        Raises ValueError if nothing is there, if it is not complete, without labels where they are asked for, or if
        more samples than that are unusable.
        """
        url = storage.absolute(url)
        if labelled:
            return _labelled(url, max_bad_share)
        if storage.exists(storage.join(url, "dataset.json")):
            return _load(url)
        found = storage.names(url)
        if "commits" in found or "recipe.json" in found:
            raise ValueError(f"{url} is not complete (it has no dataset.json): run the command that makes it once more")
        return _adopt(url, foreign.tars_in(url), max_bad_share)

    @property
    def is_foreign(self) -> bool:
        """Whether this is a folder of someone else's tars, its indexes in our cache."""
        return self.bases[0] != self.url

    def tar_url(self, shard: Shard) -> str:
        return storage.join(self.bases[shard.base], shard.name)

    def index_url(self, shard: Shard) -> str:
        return storage.join(self.bases[shard.index_base], shard.index_name)

    def index(self, shard: Shard) -> pa.Table:
        """Every row this shard was made from, failed ones too (pipeline.shards.INDEX, or LABELLED).

        A pair that the mask leaves out is a failed row, its outcome the reason. Raises Damaged.
        """
        return self.masked(shard, self.unmasked_index(shard))

    def unmasked_index(self, shard: Shard) -> pa.Table:
        """That index as if there were no mask, for who writes the shard anew. Raises Damaged."""
        index = shards.read_parquet(self.index_file(shard))
        sanity.index(self.index_url(shard), index, shard.bytes, bool(self.classes))
        return index

    def masked(self, shard: Shard, index: pa.Table) -> pa.Table:
        """An index as it was stored, or its columns row and outcome with others, with the mask applied.

        Raises Damaged.
        """
        return index if self.mask is None else masks.applied(index, self.left_out_of(shard), self.index_url(shard))

    def left_out_of(self, shard: Shard) -> pa.Table:
        """MASK: the pairs in this shard's tar that are left out."""
        return masks.MASK.empty_table() if self.mask is None else masks.lines_of(self.mask, shard.id)

    def left_out(self) -> dict[str, int]:
        """How many samples lie in the shards and are not read, by reason: those of the mask, or odd foreign ones."""
        if self.mask is not None:
            return dict(sorted(Counter(self.mask["reason"].to_pylist()).items()))
        odd = self.outcomes.items() if self.is_foreign else ()
        return {outcome: count for outcome, count in odd if outcome != shards.SUCCESS}

    def tell_left_out(self) -> None:
        """One line, if there is anything: nobody learns from less than is there without a word."""
        if fewer := self.left_out():
            counts = ", ".join(f"{count:,} {reason}" for reason, count in fewer.items())
            log.say(f"{self.url}: {self.samples:,} pairs are used; left out: {counts}")

    def index_file(self, shard: Shard) -> bytes:
        """That index as it is stored, its hash checked. Raises Damaged."""
        url = self.index_url(shard)
        try:
            data = storage.read(url)
        except FileNotFoundError as error:
            raise Damaged(f"{url} is missing") from error
        if hashlib.sha256(data).hexdigest() != shard.index_sha256:
            raise Damaged(f"{url} is not the index that the manifest names (sha256 differs)")
        return data

    def index_of_samples(self, columns: list[str] | None = None) -> pa.Table:
        """One row a sample over all shards, in order; `columns` of INDEX, plus `shard` (id, int32)."""
        parts = []
        for shard in self.shards:
            part = shards.samples_of(self.index(shard))
            if part.num_rows != shard.samples:
                raise Damaged(f"{self.index_url(shard)} lists {part.num_rows} samples, the manifest {shard.samples}")
            part = part.select(columns) if columns else part
            parts.append(part.append_column("shard", pa.array([shard.id] * part.num_rows, pa.int32())))
        return pa.concat_tables(parts)

    def fetch(self, shard: Shard, folder: Path) -> Path:
        """A verified local copy of a shard's tar: the file itself where it lies on this disk, else a download.

        Raises Damaged if it is missing, short or changed.
        """
        url = self.tar_url(shard)
        path = storage.local(url)
        if path is None:
            path = folder / f"{shard.sha256}.tar"
            if not path.exists():
                attempt = folder / f"{storage.ATTEMPT}{uuid.uuid4().hex}.tar"
                try:
                    storage.download(url, attempt)
                except FileNotFoundError as error:
                    raise Damaged(f"shard {shard.id} is missing: {url}") from error
                try:
                    check(attempt, shard, url)
                    os.replace(attempt, path)
                finally:
                    attempt.unlink(missing_ok=True)
                return path
        check(path, shard, url)
        return path


def check(path: Path, shard: Shard, url: str) -> None:
    """Raises Damaged unless the file has the size and the hash of its manifest row."""
    if not path.exists():
        raise Damaged(f"shard {shard.id} is missing: {url}")
    if (size := path.stat().st_size) != shard.bytes:
        raise Damaged(f"shard {shard.id} has {size:,} bytes instead of {shard.bytes:,}: {url}")
    if shards.quick_hash(path) != shard.xxh3:
        raise Damaged(f"shard {shard.id} has {shard.bytes:,} bytes as it should, but other ones (hash differs): {url}")


# Making one: claim the folder, commit shards in any order from anywhere, finalise.


def claim(url: str, recipe: dict[str, Any], paths: Set[str] = frozenset()) -> None:
    """Reserve a folder for one recipe. Raises ValueError if something else is or will be there.

    paths: names of fields, at any depth, that hold a file or folder; the same one may come by another spelling.
    """
    file, wanted = storage.join(url, "recipe.json"), storage.dump_json(recipe)
    if not storage.exists(file):
        if others := storage.names(url):
            raise ValueError(f"{url} exists and is not ours (it holds {others[0]!r}): choose another --out")
        storage.create(file, wanted)
    if storage.read(file) == wanted:
        return
    before, now = _spelled(storage.read_json(file), paths), _spelled(recipe, paths)
    if before != now:
        raise ValueError(differences.refusal(url, before, now))


def _spelled(value: Any, paths: Set[str], name: str = "") -> Any:
    """A recipe whose files and folders are spelled the one way."""
    if isinstance(value, dict):
        return {key: _spelled(part, paths, key) for key, part in value.items()}
    return storage.real(value) if name in paths and isinstance(value, str) else value


def is_complete(url: str) -> bool:
    return storage.exists(storage.join(url, "dataset.json"))


def committed(url: str) -> dict[int, dict[str, Any]]:
    """Commit records by shard id."""
    folder = storage.join(url, "commits")
    return {int(name.split(".")[0]): storage.read_json(storage.join(folder, name)) for name in storage.names(folder)}


def commit(url: str, shard_id: int, written: Written) -> dict[str, Any]:
    """Upload a shard and its index, then create its commit record. Returns the record that counts.

    Where another attempt was first, its record stands, and ours is only compared with it.
    """
    shard, index = _described(shard_id, written, base=0)
    record = asdict(shard) | {"outcomes": shards.outcomes(written.index)}
    tar_url, index_url = storage.join(url, record["name"]), storage.join(url, record["index_name"])
    storage.upload(written.path, tar_url)
    storage.write(index_url, index)
    for place, size in ((tar_url, written.bytes), (index_url, len(index))):
        if storage.size(place) != size:
            raise ConnectionError(f"{place} has {storage.size(place)} bytes after an upload of {size}")
    if storage.create(place := storage.join(url, "commits", f"{shard_id:05d}.json"), storage.dump_json(record)):
        return record
    first: dict[str, Any] = storage.read_json(place)
    if first["sha256"] != written.sha256:
        log.warn(f"shard {shard_id} was committed by another attempt with other bytes; the first one counts")
    return first


def _described(shard_id: int, written: Written, base: int, name: str | None = None) -> tuple[Shard, bytes]:
    """The manifest row of a shard whose index lies in this dataset, and that index as parquet. name: if not ours."""
    stem = f"{shard_id:05d}-{written.sha256[:8]}"
    buffer = io.BytesIO()
    pq.write_table(written.index, buffer, compression="zstd")
    shard = Shard(
        id=shard_id,
        base=base,
        name=name or f"shards/{stem}.tar",
        index_base=0,
        index_name=f"index/{stem}.parquet",
        samples=written.samples,
        bytes=written.bytes,
        sha256=written.sha256,
        xxh3=written.xxh3,
        index_sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        content_sha256=shards.content_hash(written.index),
    )
    return shard, buffer.getvalue()


def reference(url: str, parent: Dataset, shard: Shard, bases: list[str]) -> Shard:
    """The same shard seen from a dataset at `url`, its folder added to `bases` (base 0 is `url`)."""

    def number(base: str) -> int:
        known = [storage.real(each) for each in bases]
        if storage.real(base) not in known:
            bases.append(base)
            return len(known)
        return known.index(storage.real(base))

    index_base, index_name = shard.index_base, shard.index_name
    if _in_cache(parent.bases[index_base]):
        # An index that we made for a foreign shard lies in a cache that may be cleared: take it along.
        index_name = f"index/{Path(shard.index_name).name}"
        storage.write(storage.join(url, index_name), storage.read(parent.index_url(shard)))
        index_number = 0
    else:
        index_number = number(parent.bases[index_base])
    fields = asdict(shard) | {"base": number(parent.bases[shard.base]), "index_base": index_number}
    return Shard(**(fields | {"index_name": index_name}))


def finalise(
    url: str,
    expected: int,
    *,
    referenced: tuple[Shard, ...] = (),
    bases: tuple[str, ...] = (),
    contains_poison: bool = False,
    outcomes: dict[str, int] | None = None,
    mask: pa.Table | None = None,
) -> Dataset:
    """Write shards.parquet and dataset.json from the commits and the referenced shards.

    expected: number of shards in all. bases: absolute urls, base 0 being `url`. mask: pipeline.mask.MASK, sorted by
    shard; samples of commits and referenced shards do not count its pairs. Raises Lost if any shard is missing.
    """
    records = committed(url)
    known = set(Shard.__dataclass_fields__)
    own = [Shard(**{name: value for name, value in record.items() if name in known}) for record in records.values()]
    rows = sorted([*own, *referenced], key=lambda shard: shard.id)
    if len(rows) != expected or len({shard.id for shard in rows}) != expected:
        raise Lost(f"{url}: {len(rows)} of {expected} shards are committed; run the same command again")
    if outcomes is None:
        counts: Counter[str] = Counter()
        for record in records.values():
            counts.update(record["outcomes"])
        outcomes = dict(sorted(counts.items()))
    samples = sum(shard.samples for shard in rows)
    if samples == 0:
        raise ValueError(
            f"{url}: not one of {sum(outcomes.values())} rows could be used ({outcomes}); nothing to train on"
        )
    version = FORMAT if mask is None else masks.FORMAT
    digest = hashlib.sha256(f"antidote dataset {version}\n".encode())
    for shard in rows:
        digest.update(f"{shard.id} {shard.samples} {shard.content_sha256}\n".encode())
    more = {}
    if mask is not None:
        masks.written_into(digest, mask)
        more["mask_sha256"] = _save_mask(url, mask)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(shard) for shard in rows], schema=_SHARD), buffer, compression="zstd")
    storage.write(storage.join(url, "shards.parquet"), buffer.getvalue())
    manifest = {
        "format": version,
        "digest": digest.hexdigest(),
        "samples": samples,
        "rows": sum(outcomes.values()),
        "outcomes": outcomes,
        "shards": len(rows),
        "shards_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "bases": [storage.relative(base, url) for base in (bases[1:] if bases else ())],
        "contains_poison": contains_poison,
    }
    storage.write_json(storage.join(url, "dataset.json"), manifest | more)
    return _load(storage.absolute(url))


def _save_mask(url: str, mask: pa.Table) -> str:
    """Returns the sha256 of the file."""
    buffer = io.BytesIO()
    pq.write_table(mask.cast(masks.MASK), buffer, compression="zstd")
    storage.write(storage.join(url, masks.FILE), buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: `ANTIDOTE_CACHE`, else ~/.cache/antidote; made if need be.

    Raises ValueError where it cannot be written.
    """
    try:
        folder = storage.local(url := _cache_url())
    except ValueError as error:
        raise ValueError(f"no cache: {error}; set ANTIDOTE_CACHE to a folder that can be written") from error
    if folder is None:
        raise ValueError(f"ANTIDOTE_CACHE is a folder on this machine's own disk, not {url}")
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ValueError(
            f"the cache {folder} cannot be written ({error.strerror}): set ANTIDOTE_CACHE to a folder that can"
        ) from error
    return folder


def _cache_url() -> str:
    return os.environ.get("ANTIDOTE_CACHE") or "~/.cache/antidote"


def _in_cache(url: str) -> bool:
    """Whether it is a folder that `_adopt` made."""
    try:
        return storage.within(url, storage.join(_cache_url(), "foreign"))
    except ValueError:  # there is no home folder, and so no cache
        return False


def _load(url: str) -> Dataset:
    manifest = storage.read_json(storage.join(url, "dataset.json"))
    if isinstance(manifest, dict) and manifest.get("format") not in (FORMAT, masks.FORMAT):
        raise ValueError(
            f"{url} has dataset format {manifest.get('format')!r}; this version reads formats {FORMAT} and "
            f"{masks.FORMAT}"
        )
    sanity.manifest(url, manifest)
    listed = shards.read_parquet(_named_by(url, "shards.parquet", manifest["shards_sha256"]))
    sanity.shard_table(url, manifest, listed, _SHARD)
    mask = None
    if manifest["format"] == masks.FORMAT:
        mask = shards.read_parquet(_named_by(url, masks.FILE, manifest["mask_sha256"])).combine_chunks()
        masks.check(storage.join(url, masks.FILE), mask, listed["id"].to_pylist())
    return Dataset(
        url=url,
        digest=manifest["digest"],
        samples=manifest["samples"],
        bases=(url, *(storage.resolve(base, url) for base in manifest["bases"])),
        shards=tuple(Shard(**row) for row in listed.to_pylist()),
        contains_poison=manifest["contains_poison"],
        outcomes=manifest["outcomes"],
        mask=mask,
    )


def _named_by(url: str, name: str, sha256: str) -> bytes:
    """A file whose hash dataset.json gives. Raises Damaged."""
    try:
        data = storage.read(storage.join(url, name))
    except FileNotFoundError as error:
        raise Damaged(f"{url}/{name} is missing") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"{url}/{name} is not the one that dataset.json names (sha256 differs)")
    return data


def _labelled(url: str, max_bad_share: float) -> Dataset:
    """Raises ValueError for a label that is none of the classes beside the folder."""
    tars = [name for name in storage.names(url) if name.endswith(".tar")]
    if not tars:
        raise ValueError(
            f"no labelled images at {url}: give the folder that holds KEY.jpg and KEY.cls in .tar shards, "
            "such as data/labelled/train, which testset --split train makes in data/labelled"
        )
    found = _adopt(url, tars, max_bad_share, labelled=True)
    indexes = (shards.read_parquet(found.index_file(shard), ["outcome", "label"]) for shard in found.shards)
    count = 1 + max(max(shards.samples_of(index)["label"].to_pylist(), default=0) for index in indexes)
    names = testsets.class_names(storage.real(url)) or testsets.class_names(url)
    if names and count > len(names):
        raise ValueError(f"{url} has label {count - 1}; {testsets.CLASSES} beside it has {len(names)} classes, from 0")
    return replace(found, classes=names or tuple(map(str, range(count))))


def _adopt(url: str, names: list[str], max_bad_share: float, labelled: bool = False) -> Dataset:
    """A dataset folder of our own, in the cache, that references a bare folder of foreign tars."""
    known = storage.stamps(url)  # a tar that was replaced by one of the same size is another one
    stamped = [(name, known.get(name, "")) for name in names]
    identity = (storage.real(url), stamped, FORMAT, *(["labelled"] if labelled else []))
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    home = str(cache_folder() / "foreign" / name)
    if not is_complete(home):
        passed_over = [name for name in storage.names(url, hidden=True) if hidden.is_hidden(name)]
        rows: list[Shard] = []
        outcomes: Counter[str] = Counter()
        met = foreign.Oddities(hidden=len(passed_over))
        with log.progress(f"indexing {url}", len(names), "shards") as bar, tempfile.TemporaryDirectory() as scratch:
            for shard_id, (tar, _) in enumerate(stamped):
                place = storage.local(storage.join(url, tar))
                path = place or Path(scratch) / tar.rpartition("/")[2]
                if place is None:
                    storage.download(storage.join(url, tar), path)
                try:
                    index = foreign.indexed(path, labelled, met)
                except (Damaged, ValueError) as error:
                    folder, _, _ = storage.join(url, tar).rpartition("/")
                    raise type(error)(f"{folder}: {error}") from error
                shard, data = _described(shard_id, shards.describe(path, index), base=1, name=tar)
                storage.write(storage.join(home, shard.index_name), data)
                rows.append(shard)
                outcomes.update(shards.outcomes(index))
                if place is None:
                    path.unlink()
                bar.add(1)
        if met.hidden:
            log.say(hidden.said(met.hidden, url))
        counted = dict(sorted(outcomes.items()))
        storage.write_json(storage.join(home, foreign.EXAMPLES), met.examples)
        if not counted.get(shards.SUCCESS):
            raise foreign.refused(url, counted, met.examples, max_bad_share, labelled)
        finalise(home, len(names), referenced=tuple(rows), bases=(home, storage.real(url)), outcomes=counted)
    found = replace(_load(home), url=url)
    if (bad := foreign.bad(found.outcomes)) > max_bad_share * (bad + found.samples):
        kept = storage.join(home, foreign.EXAMPLES)
        examples = storage.read_json(kept) if storage.exists(kept) else {}  # an older version did not keep them
        raise foreign.refused(url, found.outcomes, examples, max_bad_share, labelled)
    return found
