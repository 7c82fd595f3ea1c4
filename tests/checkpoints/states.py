"""Small states to save, and what is needed to look at them closely."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toolshed import TrainState
from toolshed.checkpoints import Repository
from toolshed.checkpoints import manifest as manifests
from toolshed.checkpoints.layout import MANIFEST, STRUCTURE, Entry
from toolshed.keys import is_key
from toolshed.state import snapshot

SGD = optax.sgd(0.5)


def small_state(n: int = 0, **fields: Any) -> TrainState:
    """The n-th of many states that differ: two parameters, a frozen array, a key, a random stream."""
    parts: dict[str, Any] = {
        "params": {"mlp/w": jnp.arange(6.0).reshape(2, 3) + n, "mlp/b": jnp.asarray([n, -n], jnp.bfloat16)},
        "model_without_params": {"mask": jnp.asarray([True, False]), "rate": 0.5},
        "model_state": {"count": jnp.int32(n)},
        "loss_fn_state": {"key": jax.random.key(100 + n)},
        "optimizer_def": SGD,
        "root_rng": jax.random.key(n),
        "step": n,
    }
    return TrainState.create(**(parts | fields))


def large_state(n: int = 0) -> TrainState:
    """A state with an array that is stored by itself, and one of a type that orbax does not know."""
    raw = np.arange(70_000, dtype=np.uint8) % 16
    return small_state(
        n,
        params={"w": jnp.arange(20_000.0) + n},
        loss_fn_state={
            "codes": jnp.asarray(raw.astype(jnp.uint4)),
            "keys": jax.random.split(jax.random.key(n), 9000),
        },
    )


def save(repository: Repository, step: int, **options: Any) -> None:
    """Saves the `small_state` of a step, and waits for it."""
    repository.save(small_state(step), wait=True, **options)


def bits(state: TrainState) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every array of a state by path: dtype, shape, exact bytes."""
    found = {}
    for path, leaf in snapshot.arrays(state).items():
        raw = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        found[path] = (str(leaf.dtype), tuple(leaf.shape), raw.tobytes())
    return found


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="toolshed-checkpoints-"))
    with Repository(folder) as repository:
        repository.save(large_state(1), metrics={"loss": 2.0}, tags=["first"], metadata={"lr": 0.1})
        repository.save(large_state(2), metrics={"loss": 1.0}, wait=True)
    return folder


def two_checkpoints(to: Path) -> Repository:
    """A repository of `large_state` 1 and 2, copied rather than written."""
    shutil.copytree(_template(), to)
    return Repository(to)


def entry(repository: Repository, step: int) -> Entry:
    """The directory of a checkpoint."""
    return repository.manifest(step).entry


def forge(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a checkpoint's manifest as one would who can compute a SHA-256, sizes and all."""
    body = json.loads((folder / MANIFEST).read_bytes())
    body["files"] = {
        str(path.relative_to(folder)): [path.stat().st_size, manifests.hash_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    del body["sha256"]
    change(body)
    body["sha256"] = manifests._hash_of(body)
    (folder / MANIFEST).write_text(json.dumps(body))


def forge_structure(folder: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Changes what a checkpoint says of its arrays, and its manifest so that all hashes are right."""
    structure = json.loads((folder / STRUCTURE).read_bytes())
    change(structure["leaves"])
    (folder / STRUCTURE).write_text(json.dumps(structure))
    forge(folder, lambda body: None)
