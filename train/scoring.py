"""The evaluation pass that an objective may ask for at an epoch's start: how well image and caption fit."""

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from train import ranks
from train.encoder import Encoder
from train.ranks import Place
from train.stream import Stream


@torch.no_grad()
def cosines(encoder: Encoder, stream: Stream, place: Place, ids: np.ndarray) -> np.ndarray:
    """Cosine of image and caption, un-augmented, in eval mode: float64 (n,) for sample ids int64 (n,).

    Every rank scores a part and all get the whole.
    """
    parts = np.array_split(ids, place.ranks)
    found = []
    encoder.eval()
    ranks.from_first(encoder.buffers())  # statistics are each rank's own while it learns
    for batch in stream.evaluation(parts[place.rank]):
        images = {name: view.to(place.device) for name, view in batch["images"].items()}
        texts = {name: view.to(place.device) for name, view in batch["texts"].items()}
        image_features, text_features, _ = encoder(images, texts)
        found.append(F.cosine_similarity(image_features["image"], text_features["text"]).double())
    encoder.train()
    scores = torch.cat(found) if found else torch.zeros(0, dtype=torch.float64, device=place.device)
    if not dist.is_initialized():
        return scores.cpu().numpy()
    longest = max(len(part) for part in parts)
    whole = [scores.new_empty(longest) for _ in parts]
    dist.all_gather(whole, F.pad(scores, (0, longest - len(scores))))
    return torch.cat([part[: len(mine)] for part, mine in zip(whole, parts, strict=True)]).cpu().numpy()
