"""The `antidote` command: one word a stage. Modules are named as strings, so that help needs neither torch nor ray."""

import importlib
import sys
from collections.abc import Sequence

from infra import memory
from infra.errors import interrupted, refuse

VERBS = {
    "prepare": ("pipeline.prepare", "url table or folder -> dataset of WebDataset shards"),
    "verify": ("pipeline.verify", "read a dataset again, hold every shard against its manifest"),
    "testset": ("pipeline.testset", "labelled test set in CLIP_benchmark's layout"),
    "poison": ("poison.inject", "dataset -> poisoned dataset + ledger of what was done"),
    "optimize": ("poison.optimize", "a patch learned against a surrogate CLIP (BadCLIP), for poison badclip"),
    "preview": ("poison.preview", "contact sheet of poisoned pairs: clean, poisoned, difference"),
    "proof": ("poison.proof", "poisoned pairs as a model sees them: is every trigger still there?"),
    "pretrain": ("train.pretrain", "CLIP from scratch or from open_clip weights (torchrun for several ranks)"),
    "adopt": ("train.adopt", "weights that were trained elsewhere -> a run, no number touched"),
    "finetune": ("train.finetune", "a run defended on clean pairs (torchrun for several ranks)"),
    "scan": ("defense.scan", "is a dataset poisoned? a run's view of it -> how suspicious every pair is"),
    "filter": ("defense.filter", "dataset + scan -> the dataset without what was found, nothing copied"),
    "evaluate": ("eval.evaluate", "clean accuracy and attack success of runs on test sets"),
    "assess": ("eval.assess", "what a scan was worth, against the ledger of what it scanned"),
    "tabulate": ("eval.table", "many folders of scores -> one table, a line for every attack and run"),
    "study": ("eval.study", "a planned grid of attacks and methods: what of it is missing is run; its tables"),
    "report": ("eval.report", "scores and runs -> report.html, tables.md, scores.csv"),
}


def main(argv: Sequence[str] | None = None) -> int:
    if argv is None:  # the command itself
        memory.large_pages()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print("usage: antidote VERB [options]      (antidote VERB --help for one verb)\n")
        print("\n".join(f"  {verb:<10}{what}" for verb, (_, what) in VERBS.items()))
        return 0
    if words[0] not in VERBS:
        refuse(f"no verb is named {words[0]!r}; there are: {', '.join(VERBS)}")
    try:
        return int(importlib.import_module(VERBS[words[0]][0]).main(words[1:]))
    except KeyboardInterrupt:  # while it was imported, which takes seconds
        return interrupted()


if __name__ == "__main__":
    sys.exit(main())
