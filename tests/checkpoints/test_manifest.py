from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints.states import entry, forge, two_checkpoints
from toolshed.checkpoints import manifest
from toolshed.checkpoints.layout import Entry
from toolshed.checkpoints.manifest import Manifest
from toolshed.errors import CheckpointDamagedError, CheckpointSchemaError


def small(**fields: Any) -> Manifest:
    """A manifest of nothing."""
    parts: dict[str, Any] = {
        "step": 300,
        "generation": 7,
        "time": datetime.datetime(2026, 11, 21, 12, 30, 5, 250_000, datetime.UTC),
        "tags": (),
        "metadata": {},
        "metrics": {},
        "optimizer": "sgd",
        "data_state": None,
        "environment": {},
        "leaves": 0,
        "nbytes": 0,
        "files": {},
        "folder": Path("nowhere"),
    }
    return Manifest(**(parts | fields))


def write(tmp_path: Path, made: Manifest) -> Entry:
    """A checkpoint with a structure of no leaves."""
    folder = tmp_path / f"{made.step:012d}-{made.generation:09d}"
    folder.mkdir()
    (folder / "structure.json").write_text('{"leaves": []}')
    files = manifest.files_of(folder)
    (folder / "manifest.json").write_bytes(manifest.to_json(dataclasses.replace(made, files=files)))
    return Entry(made.step, made.generation, folder)


def test_what_is_written_is_read(tmp_path):
    made = small(
        tags=("best", "größer"),
        metadata={"lr": 1e-3, "notes": ["<script>", None, True]},
        metrics={"eval/loss": 0.1, "nan": math.nan, "low": -math.inf, "tiny": 5e-324},
        optimizer="scale_by_adam(b1=0.9)",
        data_state={"position": 3, "at": [1, {"x": 2}]},
        environment={"versions": {"jax": "0.10.2"}, "mesh": None},
        leaves=3,
        nbytes=72,
    )
    where = write(tmp_path, made)
    found = manifest.read(where)
    assert found == dataclasses.replace(
        made, folder=where.folder, files=found.files, metrics={**made.metrics, "nan": found.metrics["nan"]}
    )
    assert math.isnan(found.metrics["nan"])
    assert list(found.files) == ["structure.json"]
    assert found.structure == ()
    assert found.entry == where


def test_the_schema_of_the_file(tmp_path):
    body = json.loads((write(tmp_path, small()).folder / "manifest.json").read_bytes())
    assert list(body) == [
        "schema", "step", "generation", "time", "tags", "metadata", "metrics", "optimizer", "data_state",
        "environment", "leaves", "bytes", "files", "sha256",
    ]  # fmt: skip
    assert body["schema"] == "toolshed.checkpoint/1"
    assert body["time"] == "2026-11-21T12:30:05.250000+00:00"


def test_it_says_what_matters_in_one_line():
    made = small(tags=("best",), metrics={"eval/loss": 0.123456789}, nbytes=18_600)
    assert repr(made) == (
        "Manifest(step=300, 2026-11-21 12:30:05 UTC, 18.6 kB, tags=['best'], eval/loss=0.123457)"
    )


# --- what is not as it was written ------------------------------------------------------------------


@pytest.mark.parametrize("old", ['"step": 300', '"sgd"', '"leaves": 0', "2026-11-21", '"generation": 7'])
def test_a_change_of_any_value_is_seen(tmp_path, old):
    where = write(tmp_path, small())
    path = where.folder / "manifest.json"
    changed = path.read_text().replace(old, old.replace("0", "1").replace("sgd", "bad").replace("7", "8"))
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(CheckpointDamagedError, match=r"000000007 is damaged: manifest.json is not as it was"):
        manifest.read(where)


def test_the_manifest_of_another_checkpoint_is_told(tmp_path):
    one, other = write(tmp_path, small()), write(tmp_path, small(step=400, generation=8))
    shutil.copy(other.folder / "manifest.json", one.folder)
    with pytest.raises(CheckpointDamagedError, match="its manifest is of step 400, generation 8"):
        manifest.read(one)


@pytest.mark.parametrize(
    ("schema", "error", "message"),
    [
        ("toolshed.checkpoint/2", CheckpointSchemaError, "is of the schema 'toolshed.checkpoint/2'; this"),
        ("toolshed.checkpoint/999", CheckpointSchemaError, "A newer toolshed wrote it: update."),
        ("toolshed.train_state/1", CheckpointDamagedError, "has no schema that toolshed writes"),
        (None, CheckpointDamagedError, "has no schema that toolshed writes"),
        (1, CheckpointDamagedError, "has no schema that toolshed writes"),
    ],
)  # fmt: skip
def test_newer_schemas_are_refused(tmp_path, schema, error, message):
    where = write(tmp_path, small())
    forge(where.folder, lambda body: body.update(schema=schema))
    with pytest.raises(error, match=re.escape(message)):
        manifest.read(where)


def test_a_newer_schema_may_hash_itself_in_another_way(tmp_path):
    where = write(tmp_path, small())
    (where.folder / "manifest.json").write_text('{"schema": "toolshed.checkpoint/2", "checksum": "other"}')
    with pytest.raises(CheckpointSchemaError, match="A newer toolshed wrote it"):
        manifest.read(where)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"null", b"[1]", b'"x"', b"{}", b"[" * 200_000, b'{"a": NaN}', b'{"a": 1e999}'],
)
def test_what_is_no_manifest_is_told(tmp_path, content):
    where = write(tmp_path, small())
    (where.folder / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointDamagedError, match=r"manifest.json (is no manifest|has no schema)"):
        manifest.read(where)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    where = write(tmp_path, small())
    with (where.folder / "manifest.json").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(CheckpointDamagedError, match=r"manifest.json is larger than 64,000,000 bytes"):
        manifest.read(where)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": ["latest"]}, "The tag 'latest' means"),
        ({"tags": ["\x1b[2J"]}, "printable"),
        ({"tags": 5}, "Expected tags as a list of words"),
        ({"metadata": [1]}, "no dicts"),
        ({"environment": None}, "no dicts"),
        ({"metrics": {"a": "high"}}, "the metric 'a' is str"),
        ({"metrics": {"a": True}}, "the metric 'a' is bool True"),
        ({"metrics": [1]}, "has no attribute 'items'"),
        ({"time": "yesterday"}, "Invalid isoformat string"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "lacks something"),
        ({"leaves": None}, "lacks something"),
        ({"files": {"../../evil": [1, "x"]}}, "'../../evil' is no file of a checkpoint"),
        ({"files": {"arrays/../../x": [1, "x"]}}, "'arrays/../../x' is no file of a checkpoint"),
        ({"files": {"/etc/passwd": [1, "x"]}}, "'/etc/passwd' is no file of a checkpoint"),
        ({"files": {"a\0b": [1, "x"]}}, "is no file of a checkpoint"),
        ({"files": {"a\\b": [1, "x"]}}, "is no file of a checkpoint"),
        ({"files": {"structure.json": ["1", "x"]}}, "'structure.json' has no size and SHA-256"),
        ({"files": {"structure.json": [1]}}, "lacks something"),
        ({"files": {}}, "'structure.json' does not belong to it"),
        ({"step": 301}, "its manifest is of step 301, generation 7"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_told_though_its_hash_is_right(tmp_path, change, message):
    where = write(tmp_path, small())
    forge(where.folder, lambda body: None)
    assert manifest.read(where).step == 300
    forge(where.folder, lambda body: body.update(change))
    with pytest.raises(CheckpointDamagedError, match=re.escape(message)):
        manifest.read(where)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
NAMES = ["schema", "step", "time", "tags", "metadata", "metrics", "environment", "leaves", "bytes", "files"]


@given(name=st.sampled_from(NAMES), value=VALUES, remove=st.booleans())
@settings(deadline=None, max_examples=150)
def test_whatever_stands_in_a_manifest_it_is_one_or_told(tmp_path_factory, name, value, remove):
    folder = tmp_path_factory.mktemp("fuzzed")
    where = write(folder, small())
    forge(where.folder, lambda body: body.pop(name) if remove else body.update({name: value}))
    try:
        found = manifest.read(where)
    except (CheckpointDamagedError, CheckpointSchemaError):
        return
    repr(found)
    assert manifest.read(write(tmp_path_factory.mktemp("again"), found)).tags == found.tags


# --- files ------------------------------------------------------------------------------------------


def test_a_real_checkpoint_is_whole_and_holds_what_its_manifest_says(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    found = manifest.read(entry(repository, 1))
    manifest.check_content(found)
    assert sum(leaf.nbytes for leaf in found.structure) == found.nbytes
    assert len(found.structure) == found.leaves
    assert "structure.json" in found.files
    assert "manifest.json" not in found.files
    assert found.data_state is None


def test_a_file_too_many_is_told(tmp_path):
    where = entry(two_checkpoints(tmp_path / "r"), 1)
    (where.folder / "arrays" / "extra.py").write_text("print('boo')")
    with pytest.raises(CheckpointDamagedError, match=r"'arrays/extra.py' does not belong to it"):
        manifest.read(where)


def test_a_folder_that_is_gone_or_none_is_told(tmp_path):
    where = write(tmp_path, small())
    shutil.move(where.folder, tmp_path / "elsewhere")
    with pytest.raises(CheckpointDamagedError, match="it is no directory"):
        manifest.read(where)
    where.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointDamagedError, match="it is no directory"):
        manifest.read(where)
