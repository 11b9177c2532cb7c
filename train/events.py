"""TensorBoard's view of metrics.jsonl: the same numbers once more, in a file that `tensorboard --logdir` opens.

Written record by record and not by torch's SummaryWriter: that one names its file after this machine, cannot write to
S3 with our credentials, and leaves two curves behind where a run was resumed.
"""

import io
import logging
from typing import Any

from infra import storage
from infra.rundir import Appended

NAME = "events.out.tfevents.0.antidote"


class Events:
    """The event file of a run. lines: those of metrics.jsonl that it starts with."""

    def __init__(self, run: str, lines: list[dict[str, Any]]) -> None:
        self.file = Appended(storage.join(run, NAME))
        self.file.replace(_version() + b"".join(map(_record, lines)))

    def append(self, line: dict[str, Any]) -> None:
        self.file.append(_record(line))

    def flush(self) -> None:
        self.file.flush()


def values(line: dict[str, Any]) -> dict[str, float]:
    """What is shown of a line of metrics.jsonl, by name."""
    found = {name: value for name, value in line.items() if name not in ("step", "time", "parts")}
    found |= {f"parts/{name}": value for name, value in line.get("parts", {}).items()}
    return {f"train/{name}": value for name, value in found.items()}


def _version() -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return _framed(Event(file_version="brain.Event:2"))


def _record(line: dict[str, Any]) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values(line).items()])
    return _framed(Event(wall_time=line["time"], step=line["step"], summary=summary))


def _framed(event: Any) -> bytes:
    # tensorboard looks for TensorFlow first, at the price of a warning where numpy and TensorFlow disagree.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
