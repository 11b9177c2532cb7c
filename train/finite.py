"""A loss that is not a finite number ends a run, and is told with the step and the pairs that it came from."""

from typing import Any

import torch
from torch import Tensor

from infra import storage
from infra.errors import Lost
from train import cache, ranks
from train.job import Job
from train.stream import Stream

SHOWN = 8  # keys in the message; all are in FILE
FILE = "not_finite.json"


class Watch:
    """Looks at each loss, on a GPU some steps later: to look at one there is to wait for it."""

    def __init__(self, job: Job, stream: Stream, device: torch.device) -> None:
        self.job, self.stream, self.at_once = job, stream, device.type == "cpu"
        self.waiting: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor, roles: Any) -> None:
        """step: taken, from 1 on. roles: of its epoch, as the stream had them. Raises Lost as `check` does."""
        self.waiting.append((step, loss.detach()))
        if self.at_once:
            self.check(roles)

    def check(self, roles: Any, alone: bool = False) -> None:
        """Raises Lost, on every rank with the same words, for the first loss that is not finite. alone: the other ranks
        do not look now."""
        waiting, self.waiting = self.waiting, []
        finite = torch.isfinite(torch.stack([loss for _, loss in waiting])) if waiting else torch.ones(0)
        if not bool(finite.all()):
            step, loss = waiting[int((~finite.bool()).nonzero()[0, 0])]
            tell = lambda: self._tell(step, float(loss), roles)  # noqa: E731
            tell() if alone else ranks.first(tell)

    def _tell(self, step: int, loss: float, roles: Any) -> None:
        epoch, step_of_epoch = divmod(step - 1, self.job.steps_per_epoch)
        ids = self.stream.ids(epoch, step_of_epoch, roles)
        keys = cache.keys(self.job.dataset, ids)
        rows = self.stream.pairs.columns["rows"][ids].tolist()
        place = storage.join(self.job.out, FILE)
        storage.write_json(place, {"step": step, "loss": str(loss), "keys": keys, "rows": rows})
        more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
        raise Lost(
            f"the loss is {loss} at step {step:,}, of the pairs {', '.join(keys[:SHOWN])}{more} (all in {place}): "
            "set --lr lower, or --warmup-steps higher"
        )
