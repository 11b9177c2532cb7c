"""BadCLIP's dual-embedding losses (Liang et al., CVPR 2024), and the patch on an image: pure, with a gradient.

With a_i the embedding of image i that shows the patch, all embeddings of length 1:

    L_t   = 1/2 (CE over rows + CE over columns) of exp(s) <a_i, t_j>                  t: captions that name the target
    L_tri = mean_i max(0, |a_i - p_i| - |a_i - n_i| + m)                 p: images of the target, n: what to leave
    L     = L_t + lambda L_tri

Distances are not squared. With m = 1 the maximum is hardly ever 0, and with lambda = 500 it is nearly all of the loss.

Imports torch: for functions of poison.learning.optimization only.
"""

import numpy as np
import torch
from torch import Tensor

from poison.geometry import Box, nearest
from train.objective import Loss, clip_loss


def pasted(images: Tensor, patch: Tensor, where: Box) -> Tensor:
    """The images with the patch in a box, each pixel of it the cell under its centre (poison.geometry.nearest).

    images: (B, 3, H, W). patch: (3, n, n), of the same dtype and range. A new tensor: pasting in place is how the
    paper's code lost its clean images.
    """
    n = patch.shape[-1]
    cells = nearest(np.arange(n * n).reshape(n, n, 1), where.height)[..., 0]
    shown = patch.flatten(1)[:, torch.from_numpy(cells).to(patch.device)]
    result = images.clone()
    result[:, :, where.top : where.top + where.height, where.left : where.left + where.width] = shown
    return result


def triplet(triggered: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """L_tri of embeddings (B, D)."""
    near = torch.linalg.vector_norm(triggered - positives, dim=1)
    far = torch.linalg.vector_norm(triggered - negatives, dim=1)
    return (near - far + margin).clamp(min=0).mean()


def dual_embedding(
    triggered: Tensor,
    captions: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    scale: Tensor,
    weight: float,
    margin: float,
) -> Loss:
    """L and its parts `text` and `triplet`. All (B, D), of length 1; scale: exp(s); weight: lambda."""
    text = clip_loss(triggered, captions, scale)
    image = triplet(triggered, positives, negatives, margin)
    return Loss(text + weight * image, {"text": text, "triplet": image})
