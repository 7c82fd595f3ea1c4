"""TensorBoard: a run's values as scalars. Needs the extra ``tensorboard``, imported at first use."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

from toolshed.errors import ToolshedError
from toolshed.store import News
from toolshed.store.folders import directory_name


class TensorBoard:
    """Writes a run's values as TensorBoard's event files, each branch as a run of its own.

    Args:
      path: the ``--logdir``; each run gets a directory below it.

    Example:
      >>> sink = TensorBoard("logs")
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._writers: dict[str, Any] = {}

    def open(self, name: str) -> None:
        """Begins a run, in a directory that is not there yet.

        Raises:
          ToolshedError: tensorboard is not installed.
        """
        try:
            event: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
            summary: Any = importlib.import_module("tensorboard.compat.proto.summary_pb2")
            writer: Any = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        except ImportError as error:
            raise ToolshedError(
                "TensorBoard is not installed: pip install 'jax-toolshed[tensorboard]'."
            ) from error
        self._event, self._summary, self._new_writer = event.Event, summary.Summary, writer.EventFileWriter
        stem, number = directory_name(name), 1
        self._folder = self.path / stem
        while self._folder.exists():
            number += 1
            self._folder = self.path / f"{stem}-{number}"

    def write(self, news: News) -> None:
        """Adds the values, by step."""
        now = time.time()
        for block in news.blocks:
            writer = self._writer(block.branch)
            for step, value in zip(block.steps.tolist(), block.values.tolist(), strict=True):
                summary = self._summary(value=[self._summary.Value(tag=block.name, simple_value=value)])
                writer.add_event(self._event(wall_time=now, step=step, summary=summary))
        for writer in self._writers.values():
            writer.flush()

    def _writer(self, branch: str) -> Any:
        if branch not in self._writers:
            folder = self._folder if branch == "main" else self._folder / directory_name(branch)
            self._writers[branch] = self._new_writer(str(folder))
        return self._writers[branch]

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
