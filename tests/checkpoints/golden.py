"""Checkpoints that every later version of toolshed has to load, and what is in them.

``python -m tests.checkpoints.golden`` writes those of the schema that this version writes, once. What is
committed under ``tests/checkpoints/golden`` is never written again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toolshed import TrainState
from toolshed.checkpoints import Repository

FOLDER = Path(__file__).parent / "golden"
OPTIMIZER = optax.sgd(0.5)


def values(n: int) -> dict[str, Any]:
    """What the n-th golden state is made of; numpy's alone, so that no version of jax changes it."""
    large = np.arange(16_384, dtype=np.float32)  # 64 KiB: stored by itself
    specials = np.asarray([0x7FC00001, 0x80000000, 0x00000001, 0xFF800000], np.uint32).view(np.float32)
    return {
        "params": {
            "mlp/Affine_0/Linear.weights": large + n,
            "mlp/größe <b>": np.asarray([[n, 2], [3, 4]], jnp.bfloat16),
            "specials": specials,
        },
        "model_without_params": {
            "frozen": np.asarray([1.5, -2.5], np.float16),
            "mask": np.asarray([True, False, True]),
            "codes": (np.arange(65_536) % 16).astype(jnp.uint4),  # a type that is stored as bytes
            "rate": 0.25,
        },
        "model_state": {"count": np.int32(n), "mean": np.zeros((0, 3), np.float32)},
        "opt_state": ({"trace": np.asarray([1 + 2j, 3 - n * 1j], np.complex64)}, ()),
        "loss_fn_state": {"eight": np.asarray([1, 2], jnp.float8_e4m3fn)},
        "step": 100 * n,
    }


def state(n: int) -> TrainState:
    """The n-th golden state."""
    parts = values(n)
    keys = {
        "rbg": jax.random.wrap_key_data(jnp.asarray([1, 2, 3, n], jnp.uint32), impl="rbg"),
        "many": jax.random.wrap_key_data(jnp.asarray([[1, 2], [3, n]], jnp.uint32), impl="threefry2x32"),
    }
    parts["loss_fn_state"] |= keys
    root = jax.random.wrap_key_data(jnp.asarray([7, n], jnp.uint32), impl="threefry2x32")
    return TrainState.create(**parts, optimizer_def=OPTIMIZER, root_rng=root)


def main() -> None:
    """Writes the golden checkpoints of this version's schema."""
    folder = FOLDER / "1"
    assert not folder.exists(), f"{folder} is there, and stays as it is."
    with Repository(folder) as repository:
        repository.save(state(1), tags=["first", "größe"], metadata={"lr": 0.5, "deep": [None, {"a": True}]})
        repository.save(state(2), metrics={"eval/loss": 0.25, "bad": np.nan}, data_state={"position": 3})
        repository.tag(1 * 100, "later")
    for name in ("lock", "staging", "trash"):
        path = folder / name
        path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
