"""The CLIP that a patch is learned against: frozen, in evaluation mode, with a gradient to its images alone.

Imports torch: for functions of poison.learning.optimization only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infra import log
from train import model, transforms, weights
from train.encoder import Encoder
from train.model import Architecture

BATCH = 128


@dataclass(frozen=True)
class Surrogate:
    """A frozen model. size: pixels of the square that it sees. sha256: of its weights' file. note: what the command
    decided about them, since the file does not say it."""

    encoder: Encoder
    architecture: Architecture
    size: int
    sha256: str
    device: torch.device
    note: str | None = None

    @property
    def scale(self) -> Tensor:
        """exp(s), of the model's logits."""
        return self.encoder.clip.logit_scale.exp()

    def images(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, D) of length 1 of square images (B, 3, R, R) with values from 0 to 255.

        An image of another size than the model's is resized as open_clip does (bicubic, smoothed where it shrinks),
        but with a gradient and not rounded to bytes: at most one grey level apart.
        """
        if (side := pixels.shape[-1]) != self.size:
            for sides in ((side, self.size), (self.size, self.size)):  # Pillow too clips after each direction
                pixels = F.interpolate(pixels, sides, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
        pixels = transforms.normalised(pixels, self.encoder.mean, self.encoder.std)
        features = self.encoder.clip.encode_image(pixels.contiguous(memory_format=self.encoder.layout))
        return F.normalize(features.float(), dim=-1)

    def stored(self, stored: np.ndarray) -> Tensor:
        """Embeddings (n, D) of uint8 (n, R, R, 3), without a gradient."""
        with torch.no_grad():
            parts = [self.tensor(stored[start : start + BATCH]) for start in range(0, len(stored), BATCH)]
            return torch.cat([self.images(part) for part in parts])

    def texts(self, captions: Sequence[str]) -> Tensor:
        """Embeddings (n, D) of length 1 of captions, without a gradient."""
        tokens = model.tokenizer(self.architecture)(list(captions)).to(self.device)
        with torch.no_grad():
            return torch.cat(
                [F.normalize(self.encoder.clip.encode_text(part).float(), dim=-1) for part in tokens.split(BATCH)]
            )

    def tensor(self, stored: np.ndarray) -> Tensor:
        """uint8 (n, R, R, 3) -> float32 (n, 3, R, R) on the model's device, values as they were."""
        return torch.tensor(stored).to(self.device).permute(0, 3, 1, 2).float()


def load(surrogate: str, pretrained: str | None) -> Surrogate:
    """The model of a run folder; with `pretrained`, a model by its name with the weights of that local file.

    Raises ValueError if there is no such run, model or file, or if they do not fit.
    """
    clip: nn.Module
    note = None
    if pretrained is None:
        try:
            trained = model.load_run(surrogate)
        except ValueError as error:
            raise ValueError(
                f"--surrogate is the folder of a run, or with --pretrained FILE a model: {error}"
            ) from error
        clip, architecture, digest = trained.model, trained.architecture, trained.sha256
    else:
        try:
            architecture = model.architecture(surrogate)
            note = weights.activation(surrogate, pretrained)
            clip = model.create(architecture)
            weights.load(clip, surrogate, pretrained)
        except ValueError as error:
            raise ValueError(str(error).replace("--model", "--surrogate")) from error
        with open(pretrained, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if note is not None:
            note = note.replace("--model", "--surrogate")
            log.warn(note)
    return replace(frozen(clip, architecture, digest), note=note)


def frozen(clip: nn.Module, architecture: Architecture, sha256: str) -> Surrogate:
    """A surrogate of a model, on the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = Encoder(clip, *model.mean_and_std(architecture)).to(device).eval().requires_grad_(False)
    return Surrogate(encoder, architecture, model.image_size(architecture), sha256, device)
