"""JPEGs decoded on the device that trains: a worker hands on the file and the crop that it drew, in place of pixels.

For plain JPEGs that are larger than the model, but not too many times; all others a worker decodes, as ever. Draws are
the same as on the host, so that a view differs by the decoder and by rounding alone.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from infra import log
from infra.errors import Damaged
from pipeline import images, jpeg
from train import transforms
from train.transforms import Frame

MOST = 16  # times the model's size: to shrink more takes more shared memory than a GPU's kernel may have
TOLD: set[str] = set()  # reasons for which the host decoded what the device should have
ADOBE = b"Adobe\0"  # its segment may say that colours are stored as they are, or in CMYK

Coded = dict[str, Tensor]  # of a batch, see `packed`


def takes(data: bytes, size: int) -> tuple[int, int] | None:
    """(height, width) of an image that the device shall decode, for a model of `size` pixels; None: the host shall."""
    found = jpeg.plain_size(data)
    if found is None or not size < min(found) <= max(found) <= MOST * size or ADOBE in data:
        return None
    return found[1], found[0]


def packed(handed: list[tuple[int, bytes, Frame]]) -> Coded:
    """Of n images as (place in the batch, file, frame): places, lengths int64 (n,), frames int64 (n, 9), and the files
    end to end, uint8. Tensors alone, which go to another process without a copy."""
    places, files, frames = zip(*handed, strict=True) if handed else ((), (), ())
    return {
        "places": torch.tensor(places, dtype=torch.int64),
        "lengths": torch.tensor([len(file) for file in files], dtype=torch.int64),
        "frames": torch.tensor(frames, dtype=torch.int64).view(-1, len(Frame._fields)),
        "files": torch.from_numpy(np.frombuffer(b"".join(files), np.uint8).copy()),
    }


def completed(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch of the stream with the images that its workers left out, on the device; another one as it is.

    Raises Damaged for an image that nobody can read.
    """
    if "coded" not in batch:
        return batch
    rest, coded = {name: value for name, value in batch.items() if name != "coded"}, batch["coded"]
    shown, places = batch["images"]["image"].to(device, non_blocking=True), coded["places"]
    if len(places):
        size, frames = shown.shape[-1], [Frame(*frame) for frame in coded["frames"].tolist()]
        files = coded["files"].split(coded["lengths"].tolist())
        pixels = _decoded(list(files), batch["rows"][places].tolist(), size, device)
        views = [transforms.framed(image, frame, size, _resized) for image, frame in zip(pixels, frames, strict=True)]
        shown.index_copy_(0, places.to(device), torch.stack(views))
    return rest | {"images": {"image": shown}}


def check(device: torch.device) -> None:
    """Raises ValueError if nothing is decoded there."""
    file = images.encode(np.zeros((16, 16, 3), np.uint8), "jpg")
    try:
        on_device([torch.frombuffer(bytearray(file), dtype=torch.uint8)], device)
    except RuntimeError as error:
        raise ValueError(f"--decode device: {str(error).splitlines()[0]}; leave it out, or mend torchvision") from error


def _decoded(files: list[Tensor], rows: list[int], size: int, device: torch.device) -> list[Tensor]:
    """uint8 (3, H, W) each. What the device does not take, the host judges."""
    try:
        return on_device(files, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # of one of them; it is not said which
        return [_alone(file, row, size, device) for file, row in zip(files, rows, strict=True)]


def _alone(file: Tensor, row: int, size: int, device: torch.device) -> Tensor:
    try:
        return on_device([file], device)[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as refused:
        try:
            found = images.decoded(file.numpy().tobytes(), quick_over=size)
        except ValueError as error:
            raise Damaged(f"row {row}: {error}; mend its image or take it out") from error
        _tell(str(refused).splitlines()[0], row)
        return torch.from_numpy(np.array(found)).permute(2, 0, 1).to(device)


def on_device(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """JPEGs, uint8 (n,) each, to pixels, uint8 (3, H, W) each. Raises RuntimeError for one that torchvision refuses."""
    from torchvision.io import ImageReadMode, decode_jpeg  # seconds of imports: not for help

    return list(decode_jpeg(files, ImageReadMode.RGB, device))


def _tell(reason: str, row: int) -> None:
    """Once for each reason: there may be one such image a step."""
    if reason not in TOLD:
        TOLD.add(reason)
        log.warn(f"row {row}: the device does not decode its image ({reason}); the host does, as all such from here on")


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """As train.transforms', in floats: a GPU resizes no bytes."""
    whole = torch.nn.functional.interpolate(pixels[None].float(), (height, width), mode="bicubic", antialias=True)
    return whole[0].round_().clamp_(0, 255).to(torch.uint8)
