"""How training moves: the size of its updates, the turn of its gradients, the moments of its optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from toolshed import paths
from toolshed.errors import StateError, ToolshedError
from toolshed.gradients import Comparison
from toolshed.insight import compare
from toolshed.insight.leaves import NUMBERS, leaves_of
from toolshed.insight.statistics import leaf_statistics
from toolshed.state import TrainState


def update_ratio(params: Any, updates: Any) -> dict[str, float]:
    """How large each update is beside the parameter that it changes: ‖update‖ / ‖parameter‖, by path.

    About 1e-3 is common in training that goes well; much less hardly moves the parameter, much more
    throws it about. Infinite for a parameter that is zero; NaN where the update is zero, too. Waits for
    the device.

    Args:
      params: a tree: ``context.params``.
      updates: a tree of the same paths: ``context.updates``.

    Raises:
      ToolshedError: the trees have other paths.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> toolshed.insight.update_ratio({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 0.5])})
      {'w': 0.1}

    References:
      A. Karpathy, A Recipe for Training Neural Networks (2019), for the rule of thumb.
    """
    found = leaf_statistics({"params": params, "updates": updates})
    sizes = {path: found[f"params/{path}"].norm for path in _same_paths(params, updates)}
    return {path: compare.ratio(found[f"updates/{path}"].norm, size) for path, size in sizes.items()}


def cosine_similarity(a: Any, b: Any, *, title: str = "a to b") -> Comparison:
    """The angle between two trees of gradients, leaf by leaf and as a whole, and the ratio of their norms.

    Between the gradients of this step and those of the last one, say: near 1 they go on in one direction,
    below 0 they turn back, as they do where the learning rate is too large. Waits for the device. To
    compare two ways of finding a gradient, see `toolshed.gradients.compare`.

    Args:
      a: a tree: ``context.grads``.
      b: a tree of the same paths and shapes: ``last_context.grads``.
      title: what the result calls them.

    Raises:
      ToolshedError: the trees have other paths or shapes.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> now, last = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([2.0, 0.0])}
      >>> round(toolshed.insight.cosine_similarity(now, last).cosine["w"], 4)
      0.7071
    """
    first, second = leaves_of(a), leaves_of(b)
    names = [path for path in _same_paths(a, b) if first[path].kind == NUMBERS and first[path].count]
    for path in names:
        if first[path].shape != second[path].shape:
            raise ToolshedError(
                f"{path} is {first[path].description} in one tree, {second[path].description} in the other."
            )
    arrays = ({path: leaves[path].array for path in names} for leaves in (first, second))
    words = compare.compare_arrays(*arrays, rtol=0.0, atol=0.0)
    products = {path: compare.products(words[path]) for path in names}
    whole = compare.Products(*map(math.fsum, zip(*products.values(), strict=True)) if products else (0, 0, 0))
    return Comparison(
        cosine={path: product.cosine for path, product in products.items()},
        norm_ratio={path: product.norm_ratio for path, product in products.items()},
        cosine_of_all=whole.cosine,
        norm_ratio_of_all=whole.norm_ratio,
        title=title,
    )


def optimizer_moments(state: TrainState) -> dict[str, dict[str, Any]]:
    """What an optimiser keeps for each parameter, by what it calls it and by the parameter's path.

    ``optimizer_moments(state)["mu"]["mlp/weights"]`` is adam's first moment of that parameter. Found in
    the state of any optimiser that keeps a dict with the parameters' paths: chained, masked, for groups of
    parameters, with injected hyperparameters. Where two parts of an optimiser use one name, the names are
    the paths into ``state.opt_state``.

    Raises:
      StateError: ``state`` is no TrainState, or its arrays were donated.

    Example:
      >>> import jax, optax, toolshed
      >>> from penzai.models.simple_mlp import MLP
      >>> model = MLP.from_config(jax.random.key(0), [2, 1])
      >>> state = toolshed.TrainState.initial_state(model, optax.adam(1e-3), jax.random.key(1))
      >>> moments = toolshed.insight.optimizer_moments(state)
      >>> list(moments), list(moments["mu"])
      (['mu', 'nu'], ['mlp/Affine_0/Linear.weights', 'mlp/Affine_0/AddBias.bias'])
    """
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
    state.check_alive()

    def mirrors(node: Any) -> bool:
        return isinstance(node, Mapping) and node.keys() == state.params.keys()

    found: dict[str, dict[str, Any]] = {}
    for keys, node in jax.tree_util.tree_flatten_with_path(state.opt_state, is_leaf=mirrors)[0]:
        if mirrors(node):
            # What a mask leaves out has no array in its place.
            kept = {path: node[path] for path in state.params if hasattr(node[path], "dtype")}
            found[paths.path_string(keys)] = kept
    short = [where.rsplit("/", 1)[-1] for where in found]
    unique = len(set(short)) == len(short)
    return dict(zip(short if unique else found, found.values(), strict=True))


def _same_paths(a: Any, b: Any) -> list[str]:
    """The paths of the leaves, which both trees must have.

    Raises:
      ToolshedError: one has a path that the other lacks.
    """
    first, second = paths.flatten(a), paths.flatten(b)
    for path in [*first, *second]:
        if path not in first or path not in second:
            near = paths.nearest(path, second if path in first else first, n=1)
            hint = f" The nearest there is {near[0]!r}." if near else ""
            raise ToolshedError(f"{path!r} is in one tree only; expected two trees of the same paths.{hint}")
    return list(first)
