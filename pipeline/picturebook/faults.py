"""How the web misbehaves, at known rates: what happens to a row is a pure function of (seed, row)."""

from dataclasses import dataclass, fields
from typing import Literal

from infra.seeding import rng

Fault = Literal["ok", "sluggish", "not_found", "server_error", "slow", "truncated", "wrong_type", "tiny"]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The share of rows that fail, and of those the share of every kind; the shares of the kinds add up to 1.

    `slow` is rare: each such row holds a download thread for a whole time-out.
    """

    total: float = 0.1
    """Share of rows that never give an image."""
    not_found: float = 0.45
    """Status 404."""
    server_error: float = 0.10
    """Status 503, every time."""
    slow: float = 0.05
    """An answer that comes long after the client's time-out."""
    truncated: float = 0.15
    """A body shorter than its Content-Length."""
    wrong_type: float = 0.15
    """Status 200 and a page of HTML."""
    tiny: float = 0.10
    """An image of 1 x 1 or 2 x 2 pixels."""
    sluggish: float = 0.01
    """Beside `total`: share of the other rows whose image comes late, but long before the time-out."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0.0 <= getattr(self, field.name) <= 1.0:
                raise ValueError(f"{field.name} is a share, 0 to 1, not {getattr(self, field.name)}")
        parts = sum(share for _, share in self.kinds())
        if abs(parts - 1.0) > 1e-9:
            names = ", ".join(name for name, _ in self.kinds())
            raise ValueError(f"the shares of the faults ({names}) must add up to 1, not {parts:g}")

    def kinds(self) -> tuple[tuple[Fault, float], ...]:
        return (
            ("not_found", self.not_found),
            ("server_error", self.server_error),
            ("slow", self.slow),
            ("truncated", self.truncated),
            ("wrong_type", self.wrong_type),
            ("tiny", self.tiny),
        )


NO_FAULTS = Faults(total=0.0, sluggish=0.0)


def outcome(seed: int, row: int, rates: Faults) -> Fault:
    """What happens to whoever asks for `row`. A row that fails at some `total` fails alike at every higher one."""
    fails, which, late = rng(seed, "picturebook", "fault", row).random(3)
    if fails >= rates.total:
        return "sluggish" if late < rates.sluggish else "ok"
    for kind, share in rates.kinds():
        if which < share:
            return kind
        which -= share
    return next(kind for kind, share in reversed(rates.kinds()) if share > 0)  # the last rounding error
