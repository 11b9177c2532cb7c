"""A verdict in plain words. Each sentence says no more than its rule in eval/judging/verdict.py has established."""

from eval.judging.roles import POINTS_ALLOWED, UNDEFENDED
from eval.judging.seeds import Group, Share
from eval.judging.verdict import Verdict, above
from eval.reporting.formatting import counted, listed, percent
from eval.store.records import TRIGGERED
from infra import plugins
from poison.attack import Attack
from train.objective import Objective

REENCODED = "control"  # the attack that changes no image: it measures what encoding again does


def headline(verdict: Verdict) -> str:
    """What the attack did, and what came of the defences, in two sentences."""
    if verdict.attack is None:
        best = max(verdict.groups, key=lambda group: group.accuracy.value)
        said = f"Clean accuracy of {counted(sum(len(group.rows) for group in verdict.groups), 'model')}"
        highest = f"; the highest is {percent(best.accuracy.value)}, of {best.name}" if len(verdict.groups) > 1 else ""
        return f"{said}{highest}. No attack was measured."
    return " ".join(sentence for sentence in (_effect(verdict), _finding(verdict)) if sentence)


def _effect(verdict: Verdict) -> str:
    assert verdict.attack is not None
    name, worst, floor = verdict.attack.plugin, verdict.worst, verdict.floor
    beside = f"a model without poison {percent(floor.success.value)}" if floor else ""
    answer = f'"{verdict.attack.target}"'
    if worst is None:
        if others := [f"{group.name} takes {_left(group)}" for group in verdict.of("unknown")]:
            said = f"{listed(others)} of {verdict.attack.shown} for {answer}{', ' if beside else ''}{beside}"
            return f"Of weights from elsewhere it is not known what they learned from: {said}."
        return f"No undefended model with the poison of {name} was measured."
    success = worst.success.value
    if name == REENCODED:
        said = f"No attack, only images encoded again ({name}): the model trained on them takes {percent(success)}"
        return f"{said} of such images for {answer}{', ' if beside else ''}{beside}."
    said = f"takes {_left(worst)} of {verdict.attack.shown} for {answer}"
    if verdict.took is None:
        return f"The model poisoned with {name} {said}; no model without poison was measured beside it."
    if not verdict.took:
        return f"The {name} attack is not shown to work: the poisoned model {said}, {beside}."
    if success < 0.5:
        return f"The {name} attack works in part: the poisoned model {said}, {beside}."
    return f"The {name} attack works: the poisoned model {said}."


def _finding(verdict: Verdict) -> str:
    assert verdict.attack is not None
    if verdict.attack.plugin == REENCODED:
        return ""
    first, start, baseline, floor = verdict.first, verdict.start, verdict.baseline, verdict.floor
    if first is None:
        if verdict.worst is None and verdict.of("unknown"):
            return ""
        left = [f"{percent(group.success.value)} after {group.name}" for group in verdict.of("baseline")]
        return f"No defence was tried{f'; finetuning without one leaves {listed(left)}' if left else ''}."
    name, left_over = first.name, _left(first)
    match verdict.finding:
        case "nothing to cure":
            return "So no defence can be judged by it."
        case "too costly":
            kept = f"kept clean accuracy within {100 * POINTS_ALLOWED:.0f} points"
            return f"No defence {kept}; the strongest, {name}, leaves {_both(first)}."
        case "no difference":
            return f"No defence is shown to help: the lowest, {name}, leaves {left_over}."
        case "not removed":
            return f"No defence removes it: the best, {name}, leaves {left_over}."
        case "as the baseline":
            assert baseline is not None
            without = f"finetuning without a defence ({_left(baseline)})"
            if first.success.above(baseline.success):
                return f"{name} leaves {left_over}, more than {without}."
            return f"{name} leaves {left_over}, which these images cannot tell from {without}."
        case "no start":
            return f'{name} takes {left_over} of {verdict.attack.shown} for "{verdict.attack.target}".'
    assert start is not None
    cut = f"{name} cuts {'that' if start is verdict.worst else f'the {percent(start.success.value)} of {start.name}'}"
    if floor is None:
        return f"{cut} to {left_over}."
    never, there = "a model that never saw poison", percent(floor.success.value)
    if verdict.finding == "above the floor":
        number, of = above(first, floor), len(first.rows)
        where = "still" if number == of else f"in {number} of {of} seeds"
        return f"{cut} to {left_over}, {where} above {never} ({there})."
    return f"{cut} to {left_over}, which these images cannot tell from {never} ({there})."


def attacked(verdict: Verdict) -> str:
    attack, worst, floor = verdict.attack, verdict.worst, verdict.floor
    if attack is None:
        return ""
    pairs = f"{attack.poisons:,} training pairs"
    if attack.samples:
        share = attack.poisons / attack.samples
        pairs = f"{attack.poisons:,} of {attack.samples:,} training pairs ({percent(share, 2)})"
    if attack.plugin == REENCODED:
        return f"{pairs} were encoded again, without a trigger and with their own captions."
    words = summary(Attack, attack.plugin)
    how = f"{attack.plugin} ({words})" if words else attack.plugin
    which = "images with this trigger" if attack.shown == TRIGGERED else attack.shown
    said = f'{pairs} were poisoned with {how}, so that a CLIP trained on them would take {which} for "{attack.target}".'
    if worst:
        beside = f", one without poison in {percent(floor.accuracy.value)}" if floor else ""
        said += f" On untouched images it is right in {percent(worst.accuracy.value)}{beside}."
    return said


def tried(verdict: Verdict) -> str:
    if verdict.attack is None:
        return ""
    names: dict[str, list[str]] = {}
    for group in [*verdict.of("defended"), *_finetuned(verdict)]:
        if group.objective not in UNDEFENDED or group.kind == "defended":
            names.setdefault(group.objective, []).append(group.name)
    parts = []
    for objective, some in names.items():
        what = ["" if some == [objective] else objective, summary(Objective, objective)]
        parts.append(f"{listed(some)}: {', '.join(words for words in what if words) or 'a defence'}.")
    said = " ".join(parts) or "No defence."
    if baselines := [group.name for group in verdict.of("baseline")]:
        terms = ", on the same pairs, epochs and learning rate" if verdict.baseline else ""
        said += f" Baseline: {listed(baselines)}, finetuning without a defence{terms}."
    return said


def won(verdict: Verdict) -> str:
    """The best defence at length, then the other defences and the baselines in short."""
    first, start, parts = verdict.first, verdict.start, []
    if verdict.attack is None:
        return ""
    others = [group for group in verdict.of("defended") if group is not first]
    rivals = [group for group in others if first in verdict.kept and group in verdict.kept and _level(group, first)]
    if first and start:
        success, accuracy = _change(start.success, first.success), _change(start.accuracy, first.accuracy)
        parts.append(f"{first.name}: attack success {success}, clean accuracy {accuracy}.")
    elif first:
        parts.append(f"{first.name} leaves {_both(first)}; the model it started from was not measured.")
    if rivals:
        parts.append(f"{listed([group.name for group in rivals])} cannot be told apart from it by these numbers.")
    rest = [f"{group.name} leaves {_both(group)}" for group in others if group not in rivals]
    rest += [f"the baseline {group.name} leaves {_both(group)}" for group in verdict.of("baseline")]
    if rest:
        text = "; ".join(rest)
        parts.append(f"{text[0].upper() if text.startswith('the baseline') else text[0]}{text[1:]}.")
    for group in _finetuned(verdict):
        began = [ancestor.weights_sha256 for ancestor in group.rows[0].run.ancestors[:1]]
        start = next((one for one in verdict.groups if [row.run.weights_sha256 for row in one.rows] == began), None)
        if start is not None:
            success, accuracy = _change(start.success, group.success), _change(start.accuracy, group.accuracy)
            parts.append(f"{group.name}, from {start.name}: attack success {success}, clean accuracy {accuracy}.")
    return " ".join(parts)


def _finetuned(verdict: Verdict) -> list[Group]:
    """What was made here of weights from elsewhere."""
    return [group for group in verdict.of("unknown") if group.finetuned]


def caveats(verdict: Verdict) -> list[str]:
    """What the numbers do not say."""
    said, first = [], verdict.first
    if verdict.attack is not None:
        triggered = verdict.attack.shown == TRIGGERED
        if verdict.floor is None:
            said.append(
                "No model without poison was measured, so it is not known how often "
                f"{'the trigger alone brings that answer' if triggered else 'one gives that answer'} (the floor)."
            )
        elif not verdict.floor.rows[0].role.twin:
            said.append(f"The floor is that of a model {verdict.floor.rows[0].role.words}.")
        if first and first.finetuned and verdict.baseline is None:
            other = "No baseline was" if not verdict.of("baseline") else "None of the baselines was"
            said.append(
                f"{other} finetuned from the same start, on the same pairs, by the same recipe as {first.name}: what "
                "the defence adds to plain finetuning is not known."
            )
    if elsewhere := [group.name for group in verdict.groups if not group.finetuned and not group.rows[0].run.known]:
        said.append(f"What {listed(elsewhere)} learned from is not known: this poison, another, or none.")
    alone = [group for group in verdict.groups if len(group.rows) == 1]
    if len(alone) < len(verdict.groups):
        said.append("Numbers of several seeds are means, with the lowest and the highest in brackets.")
    if len(alone) == len(verdict.groups):
        said.append("One training run each: another seed may come out differently.")
    elif alone:
        said.append(f"Trained with one seed only: {listed([group.name for group in alone])}.")
    return said


def summary(base: type[Attack] | type[Objective], name: str) -> str:
    """What a plugin says of itself; empty for one that is not installed here."""
    known = plugins.names(base.FOLDERS)
    return plugins.load(base.FOLDERS, name, base).summary if name in known else ""  # type: ignore[type-abstract]


def _level(group: Group, other: Group | None) -> bool:
    return other is not None and not group.success.apart(other.success)


def _change(before: Share, after: Share) -> str:
    sure = "" if after.apart(before) else " (no clear difference)"
    return f"from {percent(before.value)} to {percent(after.value)}{sure}"


def _left(group: Group) -> str:
    """Attack success, with its spread where there are several seeds."""
    share, seeds = group.success, len(group.rows)
    spread = f" ({percent(share.least)} to {percent(share.most)})" if seeds > 1 else ""
    return f"{percent(share.value)}{spread}"


def _both(group: Group) -> str:
    return f"{percent(group.success.value)} at {percent(group.accuracy.value)} clean accuracy"
