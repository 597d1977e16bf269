"""TensorBoard: one folder with an event file a run. Written with TensorBoard's own messages and records, without torch.

An event file cannot be changed, so a run that has more to tell gets a new one in its place.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankwise.tracking.entry import Entry, Outcome
from rankwise.tracking.folders import push_folder

FILE_NAME = "events.out.tfevents.0.rankwise"
"""TensorBoard reads files with `tfevents` in their name."""


class TensorBoardTracker:
    """Writes below one log folder: `tensorboard --logdir FOLDER` shows it."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.summary.writer.record_writer import RecordWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        self.place = f"TensorBoard folder {folder}"
        self._folder = folder
        self._event, self._summary, self._value = event_pb2.Event, summary_pb2.Summary, summary_pb2.Summary.Value
        self._hparams, self._writer = summary_v2.hparams_pb, RecordWriter
        self._text_metadata, self._tensor = create_summary_metadata, make_tensor_proto

    def push(self, entry: Entry) -> Outcome:
        return push_folder(self._folder, entry, lambda folder: self._write(entry, folder))

    def _write(self, entry: Entry, folder: Path) -> None:
        ended_s = entry.ended_s or 0.0
        with (folder / FILE_NAME).open("wb") as file:
            writer = self._writer(file)
            writer.write(self._event(wall_time=ended_s, file_version="brain.Event:2").SerializeToString())
            for step, summary in self._summaries(entry):
                writer.write(self._event(wall_time=ended_s, step=step, summary=summary).SerializeToString())
        for name, content in entry.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _summaries(self, entry: Entry) -> Iterator[tuple[int, Any]]:
        for name, points in entry.series.items():
            for point in points:
                yield point.step, self._scalar(name, point.value)
        for name, value in entry.finals.items():
            yield entry.last_step, self._scalar(name, value)
        if entry.parameters:
            parameters = {name: _plain(value) for name, value in entry.parameters.items()}
            yield 0, self._hparams(parameters, trial_id=entry.key, start_time_secs=entry.began_s or 0.0)
        for name, text in (entry.link | dict(entry.tags)).items():
            yield 0, self._text(name, text)
        for name, content in entry.files.items():
            if name.endswith(".md"):
                yield 0, self._text(name, content.decode())
            elif name.endswith(".png"):
                yield 0, self._picture(name, content)

    def _scalar(self, name: str, value: float) -> Any:
        return self._summary(value=[self._value(tag=name, simple_value=value)])

    def _text(self, name: str, text: str) -> Any:
        tensor = self._tensor(text.encode(), shape=(1,))
        metadata = self._text_metadata(display_name=None, description=None)
        return self._summary(value=[self._value(tag=name, tensor=tensor, metadata=metadata)])

    def _picture(self, name: str, content: bytes) -> Any:
        width, height = struct.unpack(">II", content[16:24])  # a PNG begins with 8 bytes, then IHDR
        image = self._summary.Image(encoded_image_string=content, width=width, height=height, colorspace=4)
        return self._summary(value=[self._value(tag=name, image=image)])


def _plain(value: Any) -> bool | float | str:
    """TensorBoard's parameters are numbers, which it filters and draws as axes, truth values and texts."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
