"""Stored JPEGs to the model's pixels: decoded and shrunk on the device (`--decode device`), over one core of the host.

    python -m tests.gpu.decoding [--device cuda] [--batch 512] [--sizes 256 512] [--rounds 8]

By short side: images a second both ways, what goes to the device included, and the mean of how many grey levels their
pixels are apart.
"""

import argparse
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.images import decoded, encode
from tests.support import figures, timing
from train import decoding, transforms

SIZE, KINDS = 224, 32  # of the model; files that differ


def files(short: int, count: int) -> list[bytes]:
    """Photographs' size in bytes, about: smooth colours under a little grain."""
    drawn, found = np.random.default_rng(short), []
    for _ in range(min(count, KINDS)):
        smooth = Image.fromarray(drawn.integers(0, 256, (9, 12, 3), np.uint8))
        pixels = np.asarray(smooth.resize((short * 4 // 3, short), Image.Resampling.BICUBIC)).astype(int)
        grain = drawn.integers(-8, 9, pixels.shape)
        found.append(encode((pixels + grain).clip(0, 255).astype(np.uint8), "jpg", quality=90))
    return [found[at % len(found)] for at in range(count)]


def on_host(data: list[bytes]) -> Tensor:
    views = [np.asarray(transforms.trained(decoded(one, quick_over=SIZE), SIZE, "none")) for one in data]
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


def on_device(data: list[bytes], device: torch.device) -> Tensor:
    """What a worker and the rank do of it, but for the captions."""
    handed = []
    for place, one in enumerate(data):
        found = decoding.takes(one, SIZE)
        assert found is not None
        handed.append((place, one, transforms.drawn(*found, SIZE, "none")))
    blank = torch.zeros(len(data), SIZE, SIZE, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = {"images": {"image": blank}, "rows": torch.arange(len(data)), "coded": decoding.packed(handed)}
    shown: Tensor = decoding.completed(batch, device)["images"]["image"]
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    device, found = torch.device(given.device), {}
    torch.set_num_threads(1)
    decoding.check(device)
    for short in given.sizes:
        data = files(short, given.batch)
        ways: dict[str, timing.Work] = {"host": lambda: on_host(data), "device": lambda: on_device(data, device)}  # noqa: B023
        taken = timing.in_turn(ways, given.rounds, device)
        one: dict[str, Any] = {
            f"{way}_images_per_second": given.batch * 1000 / timing.middle(taken, way) for way in ways
        }
        one["device_over_host"] = one["device_images_per_second"] / one["host_images_per_second"]
        one["apart"] = float((on_host(data).float() - on_device(data, device).cpu().float()).abs().mean())
        found[str(short)] = one
    print(figures.line(found))


if __name__ == "__main__":
    main()
