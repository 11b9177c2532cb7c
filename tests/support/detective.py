"""Who has a dataset folder and nothing else, and looks for its poisons by anything but what images and captions show.

`clues` is what every pair says of itself; `telling` names the clues that tell poisons from the rest.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import shards
from pipeline.dataset import Dataset

Clues = dict[str, Any]


def clues(dataset: Dataset) -> dict[int, Clues]:
    """Every clue of every pair, by row id. Clues that are numbers are compared by rank, others by value."""
    found: dict[int, Clues] = {}
    rows = sorted(dataset.index_of_samples(["row"])["row"].to_pylist())
    for shard in dataset.shards:
        url = dataset.tar_url(shard)
        index = dataset.index(shard).to_pylist()
        kept = [row for row in index if row["outcome"] == shards.SUCCESS]
        members = _members(Path(url))
        for place, row in enumerate(kept):
            said, parts = {}, members[row["key"]]
            said["folder"] = Path(url).parent.name != "shards" or shard.base
            said["headers"] = tuple(header for _, header, _ in parts)
            said["extensions"] = tuple(name.rsplit(".", 1)[1] for name, _, _ in parts)
            said["key form"] = ("".join("9" if letter.isdigit() else letter for letter in row["key"]), len(row["key"]))
            said["index columns"] = tuple(sorted(name for name, value in row.items() if value is None))
            said["hash of stored bytes"] = row["source_sha256"] == row["image_sha256"]
            said |= _of_json(row, next((data for name, _, data in parts if name.endswith(".json")), b"{}"))
            said |= _of_image(next(data for name, _, data in parts if not name.endswith((".json", ".txt"))))
            said["caption in index"] = (
                row["caption"] == next(data for n, _, data in parts if n.endswith(".txt")).decode()
            )
            said["is last of its shard"] = place == len(kept) - 1
            said["order"] = (
                place > 0 and row["row"] < kept[place - 1]["row"],
                place > 0 and row["key"] < kept[place - 1]["key"],
            )
            numbers = {"row": row["row"], "rank of row": rows.index(row["row"]), "shard": shard.id, "place": place}
            numbers |= {"pairs in its shard": len(kept), "key length": len(row["key"])}
            found[row["row"]] = said | {name: float(number) for name, number in numbers.items()}
    return found


def telling(found: dict[int, Clues], poisons: set[int]) -> dict[str, str]:
    """Clues that separate: a value that is far more frequent among poisons, a rank that is far from the middle."""
    suspects = [said for row, said in found.items() if row in poisons]
    others = [said for row, said in found.items() if row not in poisons]
    assert len(suspects) == len(poisons) and len(others) > 5 * len(suspects)
    told = {}
    for name in dict.fromkeys(name for said in (*suspects, *others) for name in said):
        here, there = [said.get(name) for said in suspects], [said.get(name) for said in others]
        if all(isinstance(value, float) for value in here + there):
            if abs(score := _rank_score(np.array(here), np.array(there))) > 4:
                told[name] = f"rank, {score:+.1f} standard errors"
            continue
        for value in {*here, *there}:
            share, usual = here.count(value) / len(here), there.count(value) / len(there)
            whole = (here.count(value) + there.count(value)) / (len(here) + len(there))
            error = np.sqrt(max(whole * (1 - whole), 1e-9) * (1 / len(here) + 1 / len(there)))
            if abs(share - usual) > 4 * error:
                told[name] = f"{str(value)[:80]}: {share:.0%} of poisons, {usual:.0%} of others"
    return told


def _members(path: Path) -> dict[str, list[tuple[str, tuple[Any, ...], bytes]]]:
    """(name, header, content) of the members of each key, in tar order."""
    found: dict[str, list[tuple[str, tuple[Any, ...], bytes]]] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            about = (
                info.mtime,
                info.mode,
                info.uid,
                info.gid,
                info.uname,
                info.gname,
                info.type,
                bool(info.pax_headers),
            )
            raw = path.open("rb")
            raw.seek(info.offset)
            block = raw.read(512)
            raw.close()
            header = (*about, block[257:265], block[329:345])
            data = tar.extractfile(info).read()
            found.setdefault(info.name.split(".")[0], []).append((info.name, header, data))
    return found


def _of_json(row: dict[str, Any], data: bytes) -> Clues:
    said = json.loads(data)
    spelling = "".join(letter for letter in data.decode() if letter in " \n\t")[:20]
    return {
        "json keys": tuple(said),
        "json types": tuple(type(value).__name__ for value in said.values()),
        "json spelling": (spelling[:3], data[:2], "\\u" in data.decode()),
        "json agrees": tuple(said.get(name) == row[name] for name in ("url", "caption", "key", "width", "height")),
        "json status": (said.get("status"), said.get("exif"), said.get("error_message")),
        "url form": "/".join(str(row["url"]).split("/")[:3]),
        "shrunk by": said.get("original_width", 0) / said.get("width", 1),
        "json hash of stored bytes": said.get("sha256") == row["image_sha256"],
    }


def _of_image(data: bytes) -> Clues:
    image = Image.open(io.BytesIO(data))
    said: Clues = {"format": image.format, "mode": image.mode, "info": tuple(sorted(image.info)), "size": image.size}
    if image.format == "JPEG":
        tables = hashlib.sha256(repr(sorted(image.quantization.items())).encode()).hexdigest()[:8]
        said["tables"] = tables
        said["subsampling"] = tuple(layer[1:3] for layer in image.layer)
        said["segments"] = tuple(name for name, _ in image.applist)
        said["headers of the file"] = hashlib.sha256(data[: data.index(b"\xff\xda")][:2000]).hexdigest()[:8]
    said["bytes a pixel"] = len(data) / (image.width * image.height)
    return said


def _rank_score(here: np.ndarray, there: np.ndarray) -> float:
    """Mann-Whitney: how many standard errors the ranks of `here` lie from those of both together, ties shared."""
    both = np.concatenate([here, there])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    spread = ranks.std() * np.sqrt(1 / len(here) - 1 / len(both))
    return float((ranks[: len(here)].mean() - ranks.mean()) / spread) if spread else 0.0
