"""jax's settings that hold for one thread, carried over to another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

_BY_NAME = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_device": jax.default_device,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_debug_nans": jax.debug_nans,
    "jax_debug_infs": jax.debug_infs,
    "jax_disable_jit": jax.disable_jit,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
}


class Settings(NamedTuple):
    """What context managers such as ``jax.debug_nans`` and ``jax.set_mesh`` have set in a thread."""

    values: dict[str, Any]
    mesh: Any

    @classmethod
    def here(cls) -> Settings:
        """Those of the calling thread."""
        values = {name: jax.config.values[name] for name in _BY_NAME}
        return cls(values, jax.sharding.get_mesh())

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """A context in which they hold, in any thread."""
        with contextlib.ExitStack() as stack:
            for name, value in self.values.items():
                if jax.config.values[name] != value:
                    stack.enter_context(_BY_NAME[name](value))
            if not self.mesh.empty:
                stack.enter_context(jax.set_mesh(self.mesh))
            yield
