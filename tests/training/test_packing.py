"""Small arrays cross the jit boundary in packs, and come out as they went in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.training.packing import Packing, packing_for


def many(n: int, size: int = 3) -> dict[str, jax.Array]:
    return {f"leaf {number:04d}": jnp.full(size, float(number)) for number in range(n)}


def test_arrays_of_one_shape_are_stacked_by_eight_and_come_back_in_their_places():
    tree = {"a": many(11), "key": jax.random.key(3), "large": jnp.ones(2000), "b": jnp.arange(4)}
    packing = Packing(tree)
    packed = packing.pack(tree)
    assert [pack.shape for pack in packed.packs] == [(8, 3), (3, 3)]
    # the key, the large array, and the only array of its shape and dtype are not copied
    assert {id(leaf) for leaf in packed.others} == {id(tree[name]) for name in ("key", "large", "b")}
    back = packing.unpack(packed)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    for leaf, expected in zip(jax.tree.leaves(back["a"]), jax.tree.leaves(tree["a"]), strict=True):
        np.testing.assert_array_equal(leaf, expected)
    assert back["key"] is tree["key"]


def test_dtypes_are_never_mixed():
    tree = [jnp.ones(2), jnp.ones(2, jnp.int32), jnp.ones(2), jnp.ones(2, jnp.bfloat16)]
    packed = Packing(tree).pack(tree)
    assert [pack.dtype for pack in packed.packs] == [jnp.float32]
    assert [leaf.dtype for leaf in packed.others] == [jnp.int32, jnp.bfloat16]


def test_only_very_many_small_arrays_on_one_device_are_worth_it():
    assert packing_for(many(512)) is not None
    assert packing_for(many(511)) is None
    assert packing_for(many(512, size=1025)) is None  # 4,100 bytes each
    assert packing_for({}) is None


def test_two_packings_of_trees_alike_are_the_same():
    assert Packing(many(20)).identity == Packing(many(20)).identity
    assert Packing(many(20)).identity != Packing(many(21)).identity
