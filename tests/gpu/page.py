"""What the kit found, as tables in Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.gpu.steps import Step

Found = dict[str, Any]


def made(known: Found, steps: Sequence[Step]) -> str:
    """The page of gpu.json. What was not run, or failed, is said as such."""
    key, records = known["key"], {record["step"]: record for record in known["steps"]}
    hardware, versions = key["hardware"], key["versions"]
    name = ", ".join(hardware.get("gpus", [])) or "no GPU"
    about = [
        f"# What a GPU makes of it: {name}",
        ""
        if key["device"] == "cuda"
        else "\n**Tried with tiny sizes on a CPU: no number here says anything of speed.**\n",
        f"Made by `make gpu` on {hardware['cores']} cores of {hardware['processor']}"
        + (f", {hardware['gpu_memory_gib']} GiB on the GPU" if "gpu_memory_gib" in hardware else "")
        + f"; Python {versions['python']}, torch {versions['torch']}, CUDA {versions['cuda']}, "
        f"open_clip {versions['open_clip_torch']}; code {key['code']}.",
        "",
    ]
    rows = []
    for step in steps:
        record = records.get(step.name)
        if record is None:
            why = known["waiting"].get(step.name, "the kit has not come to it")
            rows.append([step.name, step.title, f"**not run**: {why}", ""])
            continue
        rows.append([step.name, step.title, outcome(record), f"{record['seconds']:,.0f}"])
    parts = ["\n".join(about), table(["step", "what", "outcome", "seconds"], rows)]
    if known["without"]:
        lacking = "; ".join(f"{package} ({why})" for package, why in known["without"].items())
        parts.append(f"Not in the folder of wheels: {lacking}.")
    for step in steps:
        found = records.get(step.name, {}).get("found")
        if found:
            parts.append(f"## {step.title[0].upper()}{step.title[1:]}\n\n{TABLES.get(step.name, towers)(found)}")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def outcome(record: Found) -> str:
    found = record["found"] or {}
    told = record["status"] if record["status"] == "done" else f"**{record['status']}**: {record['why']}"
    if "tests" in found:
        told += f"; {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
    elif lacking(found):
        told += "; **but for a part**, see below"
    return told


def lacking(found: Any) -> bool:
    """Whether a step says of a part that it was not measured, or of tests that some were skipped."""
    if not isinstance(found, dict):
        return False
    return "not_measured" in found or bool(found.get("skipped")) or any(map(lacking, found.values()))


def table(head: list[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def shown(value: object, form: str = ",.0f") -> str:
    return format(value, form) if isinstance(value, (int, float)) else "not measured"


def tests(found: Found) -> str:
    rows = [[name, one["outcome"], one["why"]] for name, one in found["tests"].items()]
    return table(["test", "outcome", "why"], rows)


def towers(found: Found) -> str:
    columns: dict[str, Callable[[Found], str]] = {
        "images/s": lambda one: shown(one.get("ours_images_per_second")),
        "open_clip's": lambda one: shown(one.get("open_clip_images_per_second")),
        "time over it": lambda one: shown(one.get("step_over_open_clip"), ".3f"),
        "peak GiB": lambda one: shown(one.get("ours_peak_gib"), ".1f"),
        "open_clip's peak": lambda one: shown(one.get("open_clip_peak_gib"), ".1f"),
        "images/s of a run": lambda one: shown(one.get("run_images_per_second")),
        "waiting for data": lambda one: shown(one.get("run_data_wait_share"), ".1%"),
        "peak GiB of a run": lambda one: shown(one.get("run_peak_gib"), ".1f"),
        "ms a pair to decode, transform, tokenise": lambda one: ", ".join(
            shown(one.get(f"run_{what}_ms"), ".2f") for what in ("decode", "transform", "tokens")
        ),
    }
    rows = [[f"{int(batch):,}", *(column(one) for column in columns.values())] for batch, one in found.items()]
    return "\n\n".join([table(["batch", *columns], rows), *_not_measured(found)])


def cleanclip(found: Found) -> str:
    rows = []
    for name, one in found.items():
        speeds = [shown(one[f"{way}_pairs_per_second"]) for way in ("one_pass", "two_passes")]
        peaks = [shown(one[f"{way}_peak_gib"], ".1f") for way in ("one_pass", "two_passes")]
        rows.append([name, *speeds, shown(one["one_over_two"], ".3f"), *peaks])
    head = ["model", "pairs/s, one pass", "two passes", "time, one over two", "peak GiB, one pass", "two passes"]
    return table(head, rows)


def roclip(found: Found) -> str:
    """A row for each capacity and way."""
    rows = []
    for name in (name for name in found if name.startswith("clip_step_ms_")):
        capacity = name.rpartition("_")[2]
        for way in found["ways"]:
            search, over = found.get(f"{way}_ms_{capacity}"), found.get(f"roclip_{way}_over_clip_{capacity}")
            rows.append([f"{int(capacity):,}", way, shown(search, ".2f"), shown(over, ".3f")])
    head = ["pool", "searched by", "ms of a search and a push", "RoCLIP's step over CLIP's"]
    return "\n\n".join([table(head, rows), *_not_measured({"": found})])


def decoding(found: Found) -> str:
    names = ("host_images_per_second", "device_images_per_second")
    rows = [
        [side, *(shown(one[name]) for name in names), shown(one["device_over_host"], ".2f"), shown(one["apart"], ".2f")]
        for side, one in found.items()
    ]
    head = ["short side", "images/s, a core of the host", "the device", "device over host", "grey levels apart"]
    return table(head, rows)


def _not_measured(found: Found) -> list[str]:
    return [f"Not measured: {one['not_measured']}." for one in found.values() if "not_measured" in one]


TABLES: dict[str, Callable[[Found], str]] = {
    "tests": tests,
    "cleanclip": cleanclip,
    "roclip": roclip,
    "decoding": decoding,
}
