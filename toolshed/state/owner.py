"""Arrays as a state takes them in: of a dtype of their own, and each in one place only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from toolshed import paths
from toolshed.errors import StateError
from toolshed.keys import is_key


class Owner:
    """Makes arrays fit to be carried and donated from step to step.

    A weak type would change in the first step and have it compiled twice, so each array gets a dtype of
    its own. An array that stands in two places, as where an optimiser starts from the parameters, is
    copied: one buffer cannot be donated twice, nor be donated and stay in the skeleton.
    """

    def __init__(self, skeleton: Any):
        self._seen = {id(leaf) for leaf in jax.tree.leaves(skeleton)}

    def __call__(self, name: str, tree: Any) -> Any:
        """The tree with each leaf as an array that is no other's."""
        return jax.tree_util.tree_map_with_path(lambda keys, leaf: self._own(name, keys, leaf), tree)

    def _own(self, name: str, keys: Any, leaf: Any) -> Any:
        if isinstance(leaf, (str, bytes)) or callable(leaf):
            where = "/".join([name, *map(paths.key_string, keys)])
            raise StateError(f"Expected an array at {where!r}, got {paths.describe(leaf)}.")
        if not is_key(leaf):
            try:
                # numpy's memory is copied: it may change, and some versions of jax would go on using it
                leaf = leaf if isinstance(leaf, jax.Array) else jnp.array(leaf)
            except TypeError as error:
                where = "/".join([name, *map(paths.key_string, keys)])
                raise StateError(f"Expected an array at {where!r}, got {paths.describe(leaf)}.") from error
            if leaf.weak_type:
                leaf = jax.lax.convert_element_type(leaf, leaf.dtype)
        if id(leaf) in self._seen:
            leaf = jnp.copy(leaf)
        self._seen.add(id(leaf))
        return leaf
