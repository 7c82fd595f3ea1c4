"""jax's settings of one thread hold in another for as long as they are held there, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolshed.settings import Settings


def elsewhere(fn: Callable[[], Any]) -> Any:
    """What a function gives in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(fn()))
    thread.start()
    thread.join()
    return results[0]


def value_of(name: str) -> Any:
    return getattr(jax.config, name)


MANAGERS = {
    "jax_enable_x64": lambda: jax.enable_x64(True),
    "jax_default_device": lambda: jax.default_device(jax.devices()[0]),
    "jax_default_matmul_precision": lambda: jax.default_matmul_precision("highest"),
    "jax_debug_nans": lambda: jax.debug_nans(True),
    "jax_debug_infs": lambda: jax.debug_infs(True),
    "jax_disable_jit": lambda: jax.disable_jit(True),
    "jax_numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "jax_numpy_rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
}


@pytest.mark.parametrize("name", MANAGERS)
def test_a_setting_holds_in_another_thread_while_it_is_held_and_not_afterwards(name):
    outside = value_of(name)
    with MANAGERS[name]():
        inside, settings = value_of(name), Settings.here()
    assert inside != outside

    def look() -> list[Any]:
        before = value_of(name)
        with settings.hold():
            held = value_of(name)
        return [before, held, value_of(name)]

    assert elsewhere(look) == [outside, inside, outside]


def test_they_end_when_what_runs_under_them_fails():
    with jax.enable_x64(True):
        settings = Settings.here()

    def fail() -> Any:
        try:
            with settings.hold():
                raise KeyError
        except KeyError:
            return jnp.zeros(1).dtype

    assert elsewhere(fail) == jnp.float32


def test_those_of_a_thread_without_any_hold_where_there_are_some():
    plain = Settings.here()
    mesh = jax.make_mesh((1,), ("data",))
    with jax.enable_x64(True), jax.set_mesh(mesh):
        with plain.hold():
            assert jnp.zeros(1).dtype == jnp.float32
            assert jax.sharding.get_mesh().empty
        assert jnp.zeros(1).dtype == jnp.float64
        assert jax.sharding.get_mesh() == mesh


def test_the_mesh_holds_too():
    mesh = jax.make_mesh((1,), ("data",))
    with jax.set_mesh(mesh):
        settings = Settings.here()

    def look() -> list[Any]:
        with settings.hold():
            held = jax.sharding.get_mesh()
        return [held, jax.sharding.get_mesh().empty]

    assert elsewhere(look) == [mesh, True]


def test_they_can_be_asked_for_while_jax_traces():
    seen = []

    @jax.jit
    def traced(x):
        seen.append(Settings.here())
        return x

    traced(np.zeros(1))
    assert seen[0].mesh is None
    with seen[0].hold():
        assert jnp.zeros(1).dtype == jnp.float32
