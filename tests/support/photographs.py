"""Images made from code that are as photographs are: odd sizes, portraits and panoramas, greys, 4:2:0, noise."""

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from infra.seeding import rng
from pipeline import dataset as datasets
from pipeline import images, shards
from pipeline.dataset import Dataset
from pipeline.shards import Sample

# (height, width) as photographs on the web have them; nearly half differ by an odd number, one is small, one is large.
SIZES = ((375, 500), (500, 333), (497, 500), (274, 500), (224, 224), (97, 140), (350, 346), (683, 512), (201, 600))
GREY = (2, 5)  # these are stored as grey JPEGs
SIDEWAYS = 3  # this one's EXIF says that it was taken with the camera turned


def photograph(number: int, height: int, width: int) -> np.ndarray:
    """Coloured blobs and edges with some noise: uint8 (height, width, 3)."""
    r = rng(0, "photograph", number)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    image = np.zeros((height, width, 3), np.float32) + r.uniform(60, 160, 3)
    for _ in range(12):
        y, x, radius = r.uniform(0, 1), r.uniform(0, 1), r.uniform(0.05, 0.4)
        inside = (down - y) ** 2 + (across - x) ** 2 < radius**2
        image[inside] += r.uniform(-70, 70, 3)
    image += 12 * np.sin(2 * np.pi * (down * r.uniform(5, 40) + across * r.uniform(5, 40)))[..., None]
    return (image + r.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def stored(number: int, *, subsampling: int = 2, quality: int = 90) -> bytes:
    """One of SIZES as a JPEG, 4:2:0 by default as most are. Upright it has that size, however it lies in the file."""
    picture, out, exif = Image.fromarray(photograph(number, *SIZES[number])), io.BytesIO(), Image.Exif()
    if number == SIDEWAYS:
        picture, exif[0x0112] = picture.transpose(Image.Transpose.ROTATE_90), 6
    if number in GREY:
        picture.convert("L").save(out, "JPEG", quality=quality, exif=exif)
    else:
        picture.save(out, "JPEG", quality=quality, subsampling=subsampling, exif=exif)
    return out.getvalue()


def pair(number: int) -> Sample:
    data = stored(number)
    width, height = images.check_header(data).size  # as a tool says it that knows nothing of EXIF
    caption = "two men and a dog beside a banana" if number == 0 else f"people on a street, number {number}"
    return Sample(f"{number:09d}", number, data, "jpg", caption, {"width": width, "height": height})


def album(url: str, pairs: list[Sample] | None = None, per_shard: int = 3) -> Dataset:
    """A dataset of these pairs, by default of all photographs."""
    kept = pairs if pairs is not None else [pair(number) for number in range(len(SIZES))]
    datasets.claim(url, {"album": len(kept)})
    starts = range(0, len(kept), per_shard)
    with tempfile.TemporaryDirectory() as scratch:
        for shard_id, start in enumerate(starts):
            path = Path(scratch) / "shard.tar"
            datasets.commit(url, shard_id, shards.write_shard(path, kept[start : start + per_shard]))
    return datasets.finalise(url, len(starts))
