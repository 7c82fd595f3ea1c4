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
    """What context managers such as ``jax.debug_nans`` and ``jax.set_mesh`` have set in a thread.

    Attributes:
      values: settings by name.
      mesh: the mesh, empty where there is none; None where it could not be told, while jax traces.
    """

    values: dict[str, Any]
    mesh: Any

    @classmethod
    def here(cls) -> Settings:
        """Those of the calling thread."""
        return cls({name: getattr(jax.config, name) for name in _BY_NAME}, _mesh_here())

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """A context in which they hold, in any thread, whatever holds there otherwise."""
        with contextlib.ExitStack() as stack:
            for name, value in self.values.items():
                if getattr(jax.config, name) != value:
                    stack.enter_context(_BY_NAME[name](value))
            if self.mesh is not None and self.mesh != _mesh_here():
                stack.enter_context(jax.set_mesh(self.mesh))
            yield


def _mesh_here() -> Any:
    try:
        return jax.sharding.get_mesh()
    except ValueError:  # a function is being traced: jax does not tell then
        return None
