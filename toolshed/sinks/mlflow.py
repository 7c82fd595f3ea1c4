"""MLflow: a run's values and events as its runs. Needs the extra ``mlflow``, imported at first use."""

from __future__ import annotations

import json
import posixpath
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from toolshed.sinks.rows import config_of, load, rows
from toolshed.store import News

_MOST = 1000  # metrics that one request may have
_MOST_PARAMETERS = 100
_LONGEST = 500  # characters of a parameter's value


class MLflow:
    """Writes a run's values and events as runs of MLflow: one for each branch, that of ``main`` the parent.

    Configuration becomes parameters and the artifact ``config.json``, events become the artifact
    ``events.jsonl``, one line of JSON each. Infinite values become the largest that there are, as MLflow has
    it.

    Args:
      uri: where MLflow keeps its runs: a database on this machine, or a server. ``mlflow ui`` shows the
        default.
      experiment: to which they belong; it is made where there is none.

    Example:
      >>> sink = MLflow(experiment="digits")
    """

    def __init__(self, uri: str = "sqlite:///mlflow.db", experiment: str = "toolshed"):
        self.uri = uri
        self.experiment = experiment
        self._runs: dict[str, str] = {}  # identifiers, by branch
        self._lines: dict[str, list[str]] = {}

    def open(self, name: str) -> None:
        """Begins.

        Raises:
          ToolshedError: mlflow is not installed.
          Exception: what MLflow raises where it cannot reach its runs.
        """
        self._mlflow = load("mlflow", "MLflow", "mlflow")
        self._entities = load("mlflow.entities", "MLflow", "mlflow")
        self._client = self._mlflow.MlflowClient(self.uri)
        self._name = name
        found = self._client.get_experiment_by_name(self.experiment)
        self._experiment = (
            self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        )

    def write(self, news: News) -> None:
        """Adds the values, many at a time, and the events."""
        now, waiting = int(time.time() * 1000), {}
        for row in rows(news.blocks):
            some = waiting.setdefault(row.branch, [])
            some += [
                self._entities.Metric(_key(name), value, now, row.step) for name, value in row.values.items()
            ]
            if len(some) >= _MOST:
                self._send(row.branch, some, news.facts)
        for branch, some in waiting.items():
            self._send(branch, some, news.facts)
        for event in news.events:
            self._lines.setdefault(event.branch, []).append(json.dumps(event._asdict()))
        for branch in {event.branch for event in news.events}:
            lines = "\n".join(self._lines[branch])
            self._client.log_text(self._run(branch, news.facts), f"{lines}\n", "events.jsonl")

    def _send(self, branch: str, metrics: list[Any], facts: Mapping[str, Any]) -> None:
        run = self._run(branch, facts)
        while metrics:
            self._client.log_batch(run, metrics=metrics[:_MOST])
            del metrics[:_MOST]

    def _run(self, branch: str, facts: Mapping[str, Any]) -> str:
        if branch not in self._runs:
            self._runs[branch] = self._new_run(branch, facts)
        return self._runs[branch]

    def _new_run(self, branch: str, facts: Mapping[str, Any]) -> str:
        tags, name = {"branch": branch}, self._name
        if branch != "main":
            tags["mlflow.parentRunId"] = self._run("main", facts)
            name = f"{name}/{branch}"
        run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        config = config_of(facts)
        found = [self._entities.Param(_key(name), value[:_LONGEST]) for name, value in _flat(config)]
        for first in range(0, len(found), _MOST_PARAMETERS):
            self._client.log_batch(run, params=found[first : first + _MOST_PARAMETERS])
        self._client.log_dict(run, config, "config.json")
        return run

    def close(self) -> None:
        """Says that the runs have ended."""
        for run in self._runs.values():
            self._client.set_terminated(run)
        self._runs.clear()


def _key(name: str) -> str:
    """A name as MLflow takes it: no other signs, and no way out of its directory."""
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", f"/{name}")).strip("/") or "_"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each value by its path."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", str(value)
