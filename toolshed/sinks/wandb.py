"""Weights & Biases: a run's values and events as its runs. Needs the extra ``wandb``, imported when used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolshed.sinks.rows import config_of, load, rows
from toolshed.store import News

_STEP = "step"


class WandB:
    """Writes a run's values and events as runs of Weights & Biases: one for each branch, in one group.

    By default nothing leaves this machine: ``wandb sync`` sends later what lies below ``path``. Each row has
    its step as a value of its own, which the charts are drawn over, so values that come late are not lost.
    Events are rows as well, with ``event/kind`` and ``event/text``.

    Args:
      project: in which the runs are.
      path: the directory in which Weights & Biases makes one named ``wandb``.
      online: send all of it while the run goes on. That takes an account.
      **options: for ``wandb.init``: ``entity``, ``tags``, ``notes`` and others.

    Example:
      >>> sink = WandB("digits")
    """

    def __init__(
        self, project: str, path: str | os.PathLike[str] = ".", *, online: bool = False, **options: Any
    ):
        self.project = project
        self.path = Path(path)
        self.online = online
        self._options = options
        self._runs: dict[str, Any] = {}

    def open(self, name: str) -> None:
        """Begins.

        Raises:
          ToolshedError: wandb is not installed.
          OSError: the directory cannot be made.
        """
        if not self.online and "wandb" not in sys.modules:
            # it would report its own failures, and the process would wait for that where there is no network
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = load("wandb", "Weights & Biases", "wandb")
        self._name = name
        self.path.mkdir(parents=True, exist_ok=True)  # or it would take another one, and only warn

    def write(self, news: News) -> None:
        """Adds the values, step by step, and the events."""
        for row in rows(news.blocks):
            self._run(row.branch, news.facts).log({**row.values, _STEP: row.step})
        for event in news.events:
            row = {"event/kind": event.kind, "event/text": event.text, _STEP: event.step}
            self._run(event.branch, news.facts).log(row)

    def _run(self, branch: str, facts: Mapping[str, Any]) -> Any:
        if branch not in self._runs:
            run = self._wandb.init(
                **{
                    "project": self.project,
                    "group": self._name,
                    "name": self._name if branch == "main" else f"{self._name}/{branch}",
                    "config": {**config_of(facts), "branch": branch},
                    "dir": str(self.path),
                    "mode": "online" if self.online else "offline",
                    "reinit": "create_new",  # beside those that there are
                    "settings": self._wandb.Settings(silent=True, console="off"),
                    **self._options,
                }
            )
            run.define_metric("*", step_metric=_STEP)
            self._runs[branch] = run
        return self._runs[branch]

    def close(self) -> None:
        """Ends the runs."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()
