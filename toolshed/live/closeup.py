"""Closeup: one array as a small picture of its values, made where the array lies."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.insight.leaves import on_plain_mesh

ROWS, COLUMNS = 96, 192
"""The most places of a picture: 74 kB."""


def closeup(array: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """An array as a matrix of at most 96 by 192 places, the last axis to the right, the others down.

    Where there are more values than places, each place has the one of the largest magnitude below it; NaN
    counts as the largest. Complex values are taken by their magnitude. Waits for the device.

    Args:
      array: float, integer or bool, of any shape; named or not.

    Returns:
      float32[rows, columns], and how many rows and columns of values there are.
    """
    array = on_plain_mesh(getattr(array, "data_array", array))
    columns = array.shape[-1] if array.ndim else 1
    whole = (math.prod(array.shape) // columns if columns else 0, columns)
    if not all(whole):
        return np.zeros((0, 0), np.float32), whole
    steps = (-(-whole[0] // ROWS), -(-whole[1] // COLUMNS))
    if steps == (1, 1):
        return np.asarray(_plain(jnp.asarray(array)).reshape(whole)), whole
    return np.asarray(_pooled(jnp.asarray(array), whole, steps)), whole


@jax.jit
def _plain(array: jax.Array) -> jax.Array:
    return (jnp.abs(array) if jnp.iscomplexobj(array) else array).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _pooled(array: jax.Array, whole: tuple[int, int], steps: tuple[int, int]) -> jax.Array:
    """The value of the largest magnitude in each block of ``steps``."""
    matrix = _plain(array).reshape(whole)
    size = jnp.where(jnp.isnan(matrix), jnp.inf, jnp.abs(matrix))
    rows, columns = (-(-length // step) for length, step in zip(whole, steps, strict=True))
    room = [
        (0, count * step - length) for count, step, length in zip((rows, columns), steps, whole, strict=True)
    ]
    blocks = [
        jnp.pad(values, room, constant_values=fill)
        .reshape(rows, steps[0], columns, steps[1])
        .swapaxes(1, 2)
        .reshape(rows, columns, -1)
        for values, fill in ((matrix, 0.0), (size, -1.0))
    ]
    place = jnp.argmax(blocks[1], axis=-1, keepdims=True)
    return jnp.take_along_axis(blocks[0], place, axis=-1)[..., 0]
