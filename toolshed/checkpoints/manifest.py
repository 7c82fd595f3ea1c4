"""The manifest of a checkpoint: what it is, and the SHA-256 of each of its files, itself included.

Schema ``toolshed.checkpoint/1``. Older schemas are read as long as there is toolshed; newer ones are
refused. A manifest may come from a stranger: it is read as data, each value is checked, and a checkpoint
with a file too few, too many or other than its manifest says is not loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolshed.checkpoints import labels, layout, structure
from toolshed.checkpoints.layout import Entry
from toolshed.checkpoints.structure import Leaf
from toolshed.errors import CheckpointDamagedError, CheckpointError, CheckpointSchemaError
from toolshed.paths import describe
from toolshed.views import format_bytes

SCHEMA = "toolshed.checkpoint/1"

_MAX_BYTES = 64_000_000
_BLOCK = 1 << 20
_FILE = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


@dataclasses.dataclass(frozen=True, repr=False)
class Manifest:
    """What is known of a checkpoint without reading its arrays.

    Attributes:
      step: the step that it is of.
      generation: its number in the order of writing.
      time: when it was written, in UTC.
      tags: words that it can be found by.
      metadata: what was saved with it, as JSON can hold it.
      metrics: numbers by name.
      optimizer: the optimiser in one line.
      data_state: the position in the data, with the data's fingerprint, or None.
      environment: versions, devices and mesh that it was made with.
      leaves: number of arrays.
      nbytes: bytes of their values.
      files: size and SHA-256 of each file.
      folder: where it is.
    """

    step: int
    generation: int
    time: datetime.datetime
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    metrics: Mapping[str, float]
    optimizer: str
    data_state: Any
    environment: Mapping[str, Any]
    leaves: int
    nbytes: int
    files: Mapping[str, tuple[int, str]]
    folder: Path

    @property
    def structure(self) -> tuple[Leaf, ...]:
        """The arrays, each with path, dtype, shape, sharding, bytes and SHA-256. Reads a file."""
        return read_structure(self)

    @property
    def entry(self) -> Entry:
        """The directory, with what its name says."""
        return Entry(self.step, self.generation, self.folder)

    def __repr__(self) -> str:
        tags = f", tags={list(self.tags)!r}" if self.tags else ""
        metrics = "".join(f", {name}={value:.6g}" for name, value in list(self.metrics.items())[:4])
        size = format_bytes(self.nbytes)
        return f"Manifest(step={self.step}, {self.time:%Y-%m-%d %H:%M:%S} UTC, {size}{tags}{metrics})"


def to_json(manifest: Manifest) -> bytes:
    """The manifest as the content of its file, with its own SHA-256."""
    body = {
        "schema": SCHEMA,
        "step": manifest.step,
        "generation": manifest.generation,
        "time": manifest.time.isoformat(),
        "tags": list(manifest.tags),
        "metadata": manifest.metadata,
        "metrics": {name: _number_out(value) for name, value in manifest.metrics.items()},
        "optimizer": manifest.optimizer,
        "data_state": manifest.data_state,
        "environment": manifest.environment,
        "leaves": manifest.leaves,
        "bytes": manifest.nbytes,
        "files": {name: list(value) for name, value in sorted(manifest.files.items())},
    }
    body["sha256"] = _hash_of(body)
    return json.dumps(body, indent=1, allow_nan=False).encode()


def _hash_of(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read(entry: Entry) -> Manifest:
    """The manifest of a checkpoint, of which each file is there in its size. Reads no other file.

    Raises:
      CheckpointDamagedError: a file is missing, too large, too small or too many; or the manifest is not
        as it was written, or is of another checkpoint.
      CheckpointSchemaError: a newer toolshed wrote it.
    """
    with _named(entry.name):
        if entry.folder.is_symlink() or not entry.folder.is_dir():
            raise CheckpointDamagedError("it is no directory")
        manifest = _parse(entry, _load(entry.folder / layout.MANIFEST))
    check_sizes(manifest)
    return manifest


def check_sizes(manifest: Manifest) -> None:
    """Whether a checkpoint's files are there in their sizes, and no others. Reads none.

    Raises:
      CheckpointDamagedError: one is not; it is named.
    """
    with _named(manifest.folder.name):
        _check_sizes(manifest.folder, manifest.files)


def check_content(manifest: Manifest) -> None:
    """Reads all files of a checkpoint, to see that they are as they were written.

    Raises:
      CheckpointDamagedError: one is not; it is named.
    """
    with _named(manifest.folder.name):
        _check_sizes(manifest.folder, manifest.files)
        for file, (_, expected) in manifest.files.items():
            if hash_file(manifest.folder / file) != expected:
                raise CheckpointDamagedError(f"{file} is not as it was written")


def read_structure(manifest: Manifest) -> tuple[Leaf, ...]:
    """The arrays of a checkpoint.

    Raises:
      CheckpointDamagedError: the file that tells them is not as it was written.
    """
    with _named(manifest.folder.name):
        path = manifest.folder / layout.STRUCTURE
        if hash_file(path) != manifest.files[layout.STRUCTURE][1]:
            raise CheckpointDamagedError(f"{path.name} is not as it was written")
        return structure.read(path)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says of which checkpoint an error is."""
    try:
        yield
    except CheckpointSchemaError:
        raise
    except (OSError, CheckpointError) as error:
        raise CheckpointDamagedError(f"{name} is damaged: {_reason(error)}.") from None


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file under a directory."""
    return {file: (size, hash_file(folder / file)) for file, size in layout.files_in(folder).items()}


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {Path(str(error.filename)).name}"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error).rstrip(".")


def _load(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        there = "is no ordinary file" if path.is_symlink() or path.exists() else "is missing"
        raise CheckpointDamagedError(f"{path.name} {there}")
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointDamagedError(f"{path.name} is larger than {_MAX_BYTES:,} bytes")
    try:
        body = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(body, dict):
            raise ValueError
        stated = body.pop("sha256", None)
        actual = _hash_of(body)
    except (ValueError, RecursionError):
        raise CheckpointDamagedError(f"{path.name} is no manifest") from None
    _check_schema(path, body.get("schema"))
    if stated != actual:
        raise CheckpointDamagedError(f"{path.name} is not as it was written")
    return body


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _check_schema(path: Path, schema: Any) -> None:
    match = re.fullmatch(r"toolshed\.checkpoint/([0-9]{1,6})", schema) if isinstance(schema, str) else None
    if match is None:
        raise CheckpointDamagedError(f"{path.name} has no schema that toolshed writes")
    if int(match[1]) > 1:
        raise CheckpointSchemaError(
            f"{path.parent.name} is of the schema {schema!r}; this version of toolshed reads up to"
            f" {SCHEMA!r}. A newer toolshed wrote it: update."
        )


def _parse(entry: Entry, body: Mapping[str, Any]) -> Manifest:
    try:
        if (body["step"], body["generation"]) != (entry.step, entry.generation):
            raise CheckpointDamagedError(
                f"its manifest is of step {int(body['step'])}, generation {int(body['generation'])}"
            )
        if not isinstance(body["metadata"], dict) or not isinstance(body["environment"], dict):
            raise TypeError("its metadata and environment are no dicts")
        metrics = {name: _number_in(name, value) for name, value in body["metrics"].items()}
        return Manifest(
            step=entry.step,
            generation=entry.generation,
            time=datetime.datetime.fromisoformat(body["time"]).astimezone(datetime.UTC),
            tags=labels.check_tags(body["tags"]),
            metadata=labels.check_json("metadata", body["metadata"]),
            metrics=labels.check_metrics(metrics),
            optimizer=str(body["optimizer"]),
            data_state=body["data_state"],
            environment=body["environment"],
            leaves=int(body["leaves"]),
            nbytes=int(body["bytes"]),
            files={_file_name(name): _size_and_hash(name, value) for name, value in body["files"].items()},
            folder=entry.folder,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointDamagedError(f"its manifest lacks something: {error}") from None


def _file_name(name: str) -> str:
    if len(name) > 300 or not _FILE.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise ValueError(f"{name[:60]!r} is no file of a checkpoint")
    return name


def _size_and_hash(name: str, value: Any) -> tuple[int, str]:
    size, digest = value
    if not isinstance(size, int) or not isinstance(digest, str):
        raise ValueError(f"{name!r} has no size and SHA-256")
    return size, digest


def _check_sizes(folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
    found = layout.files_in(folder)
    found.pop(layout.MANIFEST, None)
    for name, (size, _) in files.items():
        if name not in found:
            raise CheckpointDamagedError(f"{name} is missing")
        if found[name] != size:
            raise CheckpointDamagedError(f"{name} has {found[name]:,} bytes instead of {size:,}")
    extra = sorted(found.keys() - files.keys())
    if extra or layout.STRUCTURE not in files:
        what = (
            f"{extra[0]!r} does not belong to it" if extra else f"{layout.STRUCTURE} is not one of its files"
        )
        raise CheckpointDamagedError(what)


def _number_out(value: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return value if abs(value) < float("inf") else str(value)


def _number_in(name: str, value: Any) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"the metric {name!r} is {describe(value)}")
    return float(value)
