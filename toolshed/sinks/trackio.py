"""Trackio: a run's values and events as its runs. Needs the extra ``trackio``, imported at first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolshed.sinks.rows import config_of, load, rows
from toolshed.store import News


class Trackio:
    """Writes a run's values and events as runs of trackio on this machine: one for each branch, in one group.

    They lie where trackio keeps them, which its variable ``TRACKIO_DIR`` says; ``trackio show`` draws them.
    Events are rows as well, with ``event/kind`` and ``event/text``. What trackio cannot write it tells in
    warnings of its own.

    Args:
      project: in which the runs are.

    Example:
      >>> sink = Trackio("digits")
    """

    def __init__(self, project: str):
        self.project = project
        self._runs: dict[str, Any] = {}

    def open(self, name: str) -> None:
        """Begins.

        Raises:
          ToolshedError: trackio is not installed.
        """
        self._trackio = load("trackio", "trackio", "trackio")
        self._name = name

    def write(self, news: News) -> None:
        """Adds the values, step by step, and the events."""
        for row in rows(news.blocks):
            self._run(row.branch, news.facts).log(row.values, step=row.step)
        for event in news.events:
            row = {"event/kind": event.kind, "event/text": event.text}
            self._run(event.branch, news.facts).log(row, step=event.step)

    def _run(self, branch: str, facts: Mapping[str, Any]) -> Any:
        if branch not in self._runs:
            # not trackio.init, which would end the run that somebody has begun by hand
            self._runs[branch] = self._trackio.Run(
                None,
                self.project,
                None,
                name=self._name if branch == "main" else f"{self._name}/{branch}",
                group=self._name,
                config={_key(name): value for name, value in config_of(facts).items()} | {"branch": branch},
            )
        return self._runs[branch]

    def close(self) -> None:
        """Waits until all is on the disk."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()


def _key(name: str) -> str:
    """A name that trackio does not take for one of its own."""
    return f"config{name}" if name.startswith("_") else name
