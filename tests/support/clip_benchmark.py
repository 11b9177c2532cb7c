"""Run by the interpreter of an environment that has clip_benchmark: its numbers of one exported run, as JSON.

    python tests/support/clip_benchmark.py RUN/open_clip LABELLED [CAPTIONED SCRATCH]

Without the last two it is zero-shot alone, and the seconds that a pass takes, the best of three. Its linear probe
insists on a GPU; here it is told that this machine's CPU is one, and nothing else of it is touched.
"""

import json
import os
import sys
import time


def main(model_folder: str, labelled: str, captioned: str | None = None, scratch: str | None = None) -> None:
    sys.path.pop(0)  # this folder: this file has the library's name
    import torch
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import linear_probe, zeroshot_classification, zeroshot_retrieval
    from clip_benchmark.models import load_clip

    torch.set_num_threads(1)
    model, transform, tokenizer = load_clip(
        model_type="open_clip", model_name=f"local-dir:{model_folder}", pretrained=None, cache_dir=None, device="cpu"
    )
    model.eval()

    def loader(root: str, split: str, task: str) -> tuple:  # type: ignore[type-arg]
        dataset = build_dataset("wds/ours", root=root, transform=transform, split=split, task=task)
        return dataset, torch.utils.data.DataLoader(dataset.batched(64), batch_size=None)

    found: dict[str, float] = {"seconds": float("inf")}
    for _ in range(1 if scratch else 3):
        start = time.monotonic()
        dataset, batches = loader(labelled, "test", "zeroshot_classification")
        zero_shot = zeroshot_classification.evaluate(
            model, batches, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False
        )
        found |= {name: zero_shot[name] for name in ("acc1", "acc5")}
        found["seconds"] = min(found["seconds"], time.monotonic() - start)
    if captioned is None or scratch is None:
        print(json.dumps(found))
        return
    _, batches = loader(captioned, "test", "zeroshot_retrieval")
    found |= zeroshot_retrieval.evaluate(model, batches, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])

    class Cpu(str):  # what it compares with "cuda", and torch takes for the CPU
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return other == "cuda" or str.__eq__(self, other)

        def __hash__(self) -> int:
            return str.__hash__(self)

    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment,method-assign]
    # 10 epochs, their default, are some fifty steps here, and far from the minimum
    probe = linear_probe.evaluate(
        model, loader(labelled, "train", "linear_probe")[1], loader(labelled, "test", "linear_probe")[1], -1, 64, 0,
        0.1, 60, "ours", 0, os.path.join(scratch, "features"), Cpu("cpu"), normalize=True, amp=False,
        val_dataloader=loader(labelled, "validation", "linear_probe")[1],
    )  # fmt: skip
    found |= {name: float(probe[name]) for name in ("lp_acc1", "lp_acc5")}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
