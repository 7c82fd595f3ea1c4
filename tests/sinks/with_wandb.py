"""Weights & Biases has what a run has, as its own protocol reads it from the file that it would send.

Its service takes up to minutes to begin and to end on a small machine, so `.ci/sinks` runs this, and not the
suite.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toolshed
from tests.run.kept import data
from tests.sinks.small import ODD, TRAINER, check, failure, finish, two_branches
from toolshed.sinks import WandB

pytestmark = pytest.mark.filterwarnings("ignore")  # those of another project


def records(path: Path) -> Iterator[Any]:
    """The records of a run that was not sent: a log of LevelDB's kind behind seven bytes of a header."""
    new_record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, parts = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = new_record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def read(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """What is said of a run, and its rows."""
    found = list(records(path))
    (run,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    rows = [record.history for record in found if record.WhichOneof("record_type") == "history"]
    return run, [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


def by_step(rows: list[dict[str, Any]]) -> dict[str, dict[int, Any]]:
    """Values by name and step."""
    found: dict[str, dict[int, Any]] = {}
    for row in rows:
        for name, value in row.items():
            assert row["step"] not in found.setdefault(name, {}) or name.startswith(("event/", "step", "_"))
            found[name][row["step"]] = value
    return found


def test_weights_and_biases_has_what_the_run_has(tmp_path):
    run = two_branches(WandB("a project", tmp_path / "logs", tags=["mine"]))
    assert [event.kind for event in run.events if event.kind == "error"] == []
    found = {}
    for path in (tmp_path / "logs").glob("wandb/offline-run-*/*.wandb"):
        about, rows = read(path)
        found[about.display_name] = (about, by_step(rows))
    assert sorted(found) == ["a run/..", "a run/../main-2"]
    for branch, name in (("main", "a run/.."), ("main-2", "a run/../main-2")):
        about, values = found[name]
        check(values, run, branch)
        assert (about.project, about.run_group, list(about.tags)) == ("a project", "a run/..", ["mine"])
        config = {one.key: json.loads(one.value_json) for one in about.config.update}
        assert config["width"] == 8
        assert config["_odd"] == {"tags": ["a", None]}
        assert config["toolshed"]["parameters"] == 49
        assert config["branch"] == branch
    _, values = found["a run/.."]
    assert str(values[ODD][10]) in ("nan", "NaN")
    assert values["event/kind"][10] == "edited"
    assert values["event/text"][10] == next(event.text for event in run.events if event.kind == "edited")


def test_a_path_that_is_a_file_is_said_and_no_other_one_is_taken(tmp_path):
    (tmp_path / "file").touch()
    run = toolshed.Run(TRAINER, data(), sinks=[WandB("p", tmp_path / "file")])
    run.train(2, wait=True)
    finish(run)
    assert failure(
        run
    ) == "WandB failed and is told nothing more: FileExistsError: [Errno 17] File exists: " + repr(
        str(tmp_path / "file")
    )
