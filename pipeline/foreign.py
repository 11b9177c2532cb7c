"""A folder of someone else's shards: which tars are meant, and when too many of their samples are odd to go on."""

import math

from infra import storage
from infra.hidden import is_hidden
from pipeline.shards import NO_SAMPLES, SUCCESS

EXAMPLES = "odd.json"  # beside the indexes in our cache: the first sample of each outcome, in words
MAX_BAD_SHARE = 0.05  # of the samples; more are rather a layout that is read wrongly than damage
SHOWN = 3  # outcomes that a refusal gives an example of
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
_OURS = ("dataset.json", "recipe.json", "nshards.txt")  # a folder with one of these is a dataset or a test set


def tars_in(url: str) -> list[str]:
    """Relative paths of the tars in a folder and its subfolders, sorted; not those in datasets and test sets of ours.

    Raises ValueError if there are none, or compressed ones.
    """
    found = [name for name in storage.find(url) if storage.ATTEMPT not in name and not is_hidden(name)]
    ours = sorted({name.rpartition("/")[0] for name in found if name.rpartition("/")[2] in _OURS and "/" in name})
    foreign = [name for name in found if not any(name.startswith(f"{folder}/") for folder in ours)]
    direct = [name for name in storage.names(url) if not is_hidden(name)]  # pipes and links to nowhere too
    if packed := [name for name in foreign if name.endswith(_COMPRESSED)]:
        raise ValueError(
            f"{storage.join(url, packed[0])} is compressed, and shards are plain .tar files, read from any place in "
            f"them: decompress all {len(packed):,} such files (gunzip, unxz, unzstd), or move them elsewhere"
        )
    names = {name for name in [*foreign, *direct] if name.endswith(".tar")}
    if not names:
        instead = f"; give one of the datasets in it: {', '.join(ours[:5])}" if ours else ""
        raise ValueError(f"no dataset at {url}: neither a dataset.json nor .tar shards were found there{instead}")
    return sorted(names)


def bad(outcomes: dict[str, int]) -> int:
    """How many samples are no pairs."""
    return sum(count for name, count in outcomes.items() if name not in (SUCCESS, *NO_SAMPLES))


def refused(
    url: str, outcomes: dict[str, int], examples: dict[str, str], max_bad_share: float, labelled: bool
) -> ValueError:
    """Too many samples are odd: how many of which kind, an example of the most frequent ones, and the way past."""
    number, good = bad(outcomes), outcomes.get(SUCCESS, 0)
    odd = sorted(((count, name) for name, count in outcomes.items() if name != SUCCESS), reverse=True)
    counts = ", ".join(f"{count:,} {name}" for count, name in odd)
    shown = "; ".join(examples[name][:240] for _, name in odd[:SHOWN] if name in examples)
    of_all = f"{number:,} of {number + good:,} samples" if number else "what it holds"
    said = f"{url}: {of_all} cannot be used ({counts}): {shown}"
    if not good:
        return ValueError(f"{said}. Nothing is left to use")
    if labelled:
        return ValueError(f"{said}. More than {100 * max_bad_share:g}% are refused: mend them or take them out")
    return ValueError(
        f"{said}. More than {100 * max_bad_share:g}% are refused; {way_past(url, number / (number + good))}"
    )


def way_past(url: str, share: float = 0.0) -> str:
    """What to do about bad pairs of a dataset. share: of all pairs, where it is known."""
    limit = f" --max-bad-share {math.ceil(100 * share) / 100:g}" if share > MAX_BAD_SHARE else ""
    return f"to leave them out for everybody: antidote verify --dataset {url} --decode{limit} --leave-out NEW"
