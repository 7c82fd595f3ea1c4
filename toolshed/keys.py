"""Random keys as they cross borders: typed to people, raw bits to compiled code and to files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_key(value: Any) -> bool:
    """True for an array of typed keys, as ``jax.random.key`` makes them."""
    if not hasattr(value, "dtype") or isinstance(value.dtype, np.dtype):
        return False  # numpy's own types, which are most, are known to be none at once
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def raw_key(value: Any) -> Any:
    """The bits of a typed key, uint32[..., n]; anything else as it is.

    A typed key among the arguments takes a call to compiled code off jax's fast path.
    """
    return jax.random.key_data(value) if is_key(value) else value


def key_unpacker(value: Any) -> Callable[[Any], Any]:
    """The inverse of `raw_key` for values of the same kind."""
    if not is_key(value):
        return lambda bits: bits
    impl = jax.random.key_impl(value)
    return lambda bits: jax.random.wrap_key_data(bits, impl=impl)
