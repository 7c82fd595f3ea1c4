"""Variables and models made of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from penzai import pz

ones = jnp.ones(3)


def parameter(label: Any, value: Any = ones, **metadata: Any) -> pz.Parameter:
    return pz.Parameter(value=value, label=label, metadata=metadata)


def state_variable(label: Any, value: Any = ones) -> pz.StateVariable:
    return pz.StateVariable(value, label=label)


def of_type(kind: type, tree: Any) -> list[Any]:
    return [
        node
        for node in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kind))
        if isinstance(node, kind)
    ]
