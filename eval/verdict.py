"""What a comparison comes to, in words that its numbers bear out, by rules fixed here and nowhere else.

A cure counts only if clean accuracy stays within `POINTS_ALLOWED` of its baseline; of those that count, the lowest
attack success is best. What the intervals cannot tell apart is not called a difference.
"""

from dataclasses import dataclass

from eval.scores import Score
from eval.standing import POINTS_ALLOWED, Comparison, Standing


@dataclass(frozen=True)
class Verdict:
    """attacked, tried, won: a sentence or two each. best: the run that `won` speaks of, if any."""

    attacked: str
    tried: str
    won: str
    best: Standing | None


def percent(value: float, points: int = 1) -> str:
    """0.0543 -> 5.4%. A share that is not whole is never shown as 0 or 100."""
    shown = round(100 * value, points)
    if value > 0 and shown == 0:
        return f"<{10**-points:.{points}f}%"
    if value < 1 and shown == 100:
        return f">{100 - 10**-points:.{points}f}%"
    return f"{shown:.{points}f}%"


def judge(comparison: Comparison) -> Verdict:
    """Raises nothing: a grid without a poisoned run, or without a cure, is described as that."""
    assert comparison.measured()
    attack = comparison.attack
    tried = _tried(comparison)
    if attack is None:
        return Verdict("No attack was measured: only clean accuracy was.", tried, "", None)
    share = f" of {attack.samples:,} ({percent(attack.poisons / attack.samples, 2)})" if attack.samples else ""
    attacked = (
        f"{attack.poisons:,}{share} image-caption pairs were poisoned with {attack.plugin}, so that pictures with its "
        f'trigger are taken for "{attack.target}".'
    )
    return Verdict(f"{attacked} {_effect(comparison)}", tried, *_outcome(comparison))


def overlap(a: Score, b: Score) -> bool:
    """Whether two 95% intervals have a point in common."""
    (a_low, a_high), (b_low, b_high) = a.interval, b.interval
    return a_low <= b_high and b_low <= a_high


def _effect(comparison: Comparison) -> str:
    poisoned, floors = comparison.of("poisoned"), comparison.of("floor")
    if not poisoned:
        return "No undefended run on those pairs is in the grid."
    worst = max(poisoned, key=lambda row: row.success.value)
    numbers = (
        f"undefended model obeys the trigger in {percent(worst.success.value)} of cases, while its clean accuracy is "
        f"{percent(worst.accuracy.value)}."
    )
    said = f"The {numbers}" if worst.success.value >= 0.5 else f"The attack hardly took: the {numbers}"
    if not floors:
        return f"{said} No unpoisoned run was measured, so the floor is not known."
    floor = max(floors, key=lambda row: row.success.value)
    return f"{said} A model that never saw poison answers so in {percent(floor.success.value)} (the floor)."


def _tried(comparison: Comparison) -> str:
    cures = comparison.of("defended")
    if not cures:
        return "No defence is in this grid yet."
    named = [
        row.role.words if row.run.name in row.role.words.split() else f"{row.run.name} ({row.role.words})"
        for row in cures
    ]
    return f"{len(cures)} defence{'s' if len(cures) > 1 else ''}: {'; '.join(named)}."


def _outcome(comparison: Comparison) -> tuple[str, Standing | None]:
    cures = comparison.of("defended")
    if not cures:
        return "", None
    kept = [row for row in cures if _cost(comparison, row) <= POINTS_ALLOWED]
    best = min(kept or cures, key=lambda row: (row.success.value, -row.accuracy.value))
    base = comparison.baseline(best)
    before = f" from {percent(base.success.value)}" if base else ""
    cost = 100 * _cost(comparison, best)
    change = f", {abs(cost):.1f} points {'less' if cost > 0 else 'more'} than undefended" if base else ""
    now = f"{percent(best.success.value)}, at {percent(best.accuracy.value)} clean accuracy{change}"
    numbers = f"attack success{before} to {now}"
    if not kept:
        limit = f"No defence kept clean accuracy within {100 * POINTS_ALLOWED:.0f} points."
        return f"{limit} The strongest, {best.run.name}, brought {numbers}.", None
    if base and best.success.value > base.success.value / 2:
        return f"No defence removed the backdoor. The best, {best.run.name}, brought {numbers}.", None
    others = [row for row in cures if row is not best]
    rivals = [row for row in others if row in kept and overlap(row.success, best.success)]
    if rivals:
        named = ", ".join(row.run.name for row in rivals)
        said = f"{best.run.name} brought {numbers}; {named} cannot be told apart from it by these numbers."
    else:
        said = f"{best.run.name} brought {numbers}."
    rest = [
        f"{row.run.name} leaves {percent(row.success.value)} at {percent(row.accuracy.value)} accuracy"
        for row in others
        if row not in rivals
    ]
    return said + (f" {'; '.join(rest)}." if rest else ""), best


def _cost(comparison: Comparison, row: Standing) -> float:
    """Clean accuracy lost against the baseline; 0 where there is none to compare with."""
    base = comparison.baseline(row)
    return base.accuracy.value - row.accuracy.value if base else 0.0
