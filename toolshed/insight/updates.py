"""How training moves: the size of its updates, the turn of its gradients, the moments of its optimiser."""

from __future__ import annotations

import math
from typing import Any

import jax
import optax

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

    ``optimizer_moments(state)["mu"]["mlp/weights"]`` is adam's first moment of that parameter. Found by
    optax itself in the state of any optimiser that keeps something like the parameters: chained, masked,
    for groups of parameters, with injected hyperparameters. Where two parts of an optimiser use one name,
    the names are the paths into ``state.opt_state``.

    Raises:
      StateError: ``state`` is no TrainState, or its arrays were donated.

    Example:
      >>> import jax, optax, toolshed
      >>> from penzai.models.simple_mlp import MLP
      >>> model = MLP.from_config(jax.random.key(0), [2, 1])
      >>> state = toolshed.TrainState.initial_state(model, optax.adam(1e-3), jax.random.key(1))
      >>> moments = toolshed.insight.optimizer_moments(state)
      >>> list(moments), list(moments["mu"])
      (['mu', 'nu'], ['mlp/Affine_0/AddBias.bias', 'mlp/Affine_0/Linear.weights'])
    """
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
    state.check_alive()
    named = {path: _Name(path) for path in state.params}
    marked = optax.tree.map_params(state.optimizer_def, _Moment, state.opt_state, named)
    found: dict[str, dict[str, Any]] = {}
    leaves = jax.tree_util.tree_flatten_with_path(marked, is_leaf=lambda node: isinstance(node, _Moment))[0]
    for keys, leaf in leaves:
        if isinstance(leaf, _Moment) and hasattr(leaf.value, "dtype"):
            where = paths.path_string(keys).removesuffix(leaf.name.path).rstrip("/")
            found.setdefault(where, {})[leaf.name.path] = leaf.value
    short = [where.rsplit("/", 1)[-1] for where in found]
    unique = len(set(short)) == len(short)
    return dict(zip(short if unique else found, found.values(), strict=True))


class _Name:
    """A parameter's path, as a leaf of a tree."""

    def __init__(self, path: str):
        self.path = path


class _Moment:
    """A value in an optimiser's state that belongs to a parameter."""

    def __init__(self, value: Any, name: _Name):
        self.value, self.name = value, name


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
