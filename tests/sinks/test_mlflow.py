"""MLflow has what a run has, as its own client reads it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

import toolshed
from tests.run.kept import data
from tests.sinks.small import TRAINER, check, failure, finish, two_branches
from toolshed.sinks import MLflow
from toolshed.sinks.mlflow import _key

pytestmark = pytest.mark.filterwarnings("ignore")  # those of another project


def test_mlflow_has_what_the_run_has(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    run = two_branches(MLflow(experiment="mine"))
    assert [event.kind for event in run.events if event.kind == "error"] == []
    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("mine")
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == ["a run/..", "a run/../main-2"]
    for branch, name in (("main", "a run/.."), ("main-2", "a run/../main-2")):
        one = found[name]
        values = {
            metric: {point.step: point.value for point in client.get_metric_history(one.info.run_id, metric)}
            for metric in one.data.metrics
        }
        check(values, run, branch)
        assert one.info.status == "FINISHED"
        assert one.data.params["width"] == "8"
        assert one.data.params["toolshed/parameters"] == "49"
        config = json.loads(client_text(client, one.info.run_id, "config.json", tmp_path))
        assert config["_odd"] == {"tags": ["a", None]}
    main = found["a run/.."].info.run_id
    assert found["a run/../main-2"].data.tags["mlflow.parentRunId"] == main
    (odd,) = client.get_metric_history(main, "_b_mine_/b_/number")
    assert math.isnan(odd.value)
    lines = client_text(client, main, "events.jsonl", tmp_path).splitlines()
    events = [(event.kind, event.step, event.text) for event in run.events if event.branch == "main"]
    assert [(line["kind"], line["step"], line["text"]) for line in map(json.loads, lines)] == events
    assert "edited" in [kind for kind, _, _ in events]


def client_text(client: object, run: str, name: str, folder: Path) -> str:
    from mlflow.artifacts import download_artifacts

    del client
    return Path(
        download_artifacts(run_id=run, artifact_path=name, tracking_uri=f"sqlite:///{folder}/mlflow.db")
    ).read_text()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train/loss", "train/loss"),
        ("../../x", "x"),
        ("/etc//passwd", "etc/passwd"),
        ("a\n<b>", "a__b_"),
        ("..", "_"),
        ("", "_"),
        ("é π", "é π"),
    ],
)
def test_names_become_such_as_mlflow_takes(name, key):
    from mlflow.utils.validation import _validate_metric_name

    assert _key(name) == key
    _validate_metric_name(key)


def test_without_mlflow_the_run_goes_on_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = toolshed.Run(TRAINER, data(), sinks=[MLflow()])
    run.train(2, wait=True)
    finish(run)
    assert "MLflow is not installed: pip install 'jax-toolshed[mlflow]'." in failure(run)


def test_a_database_that_cannot_be_made_is_said(tmp_path):
    run = toolshed.Run(TRAINER, data(), sinks=[MLflow(f"sqlite:///{tmp_path}/no/where.db")])
    (tmp_path / "no").touch()
    run.train(2, wait=True)
    finish(run)
    assert failure(run).startswith("MLflow failed and is told nothing more: ")
    assert run.status == "finished"
