"""What is looked at: a function or a training step with its arguments, traced, with names for everything."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from toolshed import models, paths
from toolshed.errors import NonFiniteError, StateError, ToolshedError
from toolshed.insight.finite import copied, nonfinite
from toolshed.insight.leaves import KEY, NUMBERS, leaf_of
from toolshed.insight.source import OPTIMIZER
from toolshed.insight.sources import step_of
from toolshed.keys import raw_key
from toolshed.loss_function import check_is_batch
from toolshed.state import TrainState
from toolshed.training import TrainStep
from toolshed.training.program import Computation, Skeleton

_JUDGED = ("loss_total", "grads", "updates", "params", "opt_state", "model_state", "loss_fn_state")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A traced function with its arguments.

    Attributes:
      closed: the function as ``jax.make_jaxpr`` gives it.
      arguments: what it is called with, flat.
      names: what each argument is called.
      results: what each result is called.
      excused: results that may be infinite, because what was carried into them was.
      run: runs the compiled function: the names of the results that are not finite. None for a function
        that is not compiled.
    """

    closed: Any
    arguments: list[Any]
    names: list[str]
    results: list[str]
    excused: frozenset[str]
    run: Callable[[], tuple[str, ...]] | None


def subject_of(function: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Subject:
    """A training step with a state and a batch, or any function with its arguments.

    Raises:
      ToolshedError: it cannot be called, or a step is not given a state and a batch.
    """
    step = step_of(function)
    if step is not None:
        if len(arguments) != 2 or named:
            raise ToolshedError(
                f"A training step takes a state and a batch; got {len(arguments) + len(named)} arguments."
                " Call first_nonfinite(step, state, batch)."
            )
        return _of_step(step, *arguments)
    if not callable(function):
        raise ToolshedError(
            f"Expected a function or a training step, got {paths.describe(function)}. Pass the function"
            " itself, and its arguments after it: first_nonfinite(f, x, y)."
        )
    return _of_function(function, arguments, named)


# --- training steps -----------------------------------------------------------------------------------


def _of_step(step: TrainStep, state: Any, batch: Any) -> Subject:
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
    state.check_alive()
    check_is_batch(batch)
    skeleton = Skeleton(state.model_without_params)
    plain = state.replace(metrics=None, optimizer_def=_scoped(state.optimizer_def))
    computation = Computation(
        plain,
        skeleton,
        loss_fn=step._loss_fn,
        gradient_strategy=step._gradient_strategy,
        outputs=("loss_total", "grads", "updates"),
        record=(),
        steps_per_call=step.steps_per_call,
        check_finite=False,
    )

    def compute(given: Mapping[str, Any]) -> dict[str, Any]:
        rest = (given["step"], given["loss_fn_state"], None)
        (params, opt_state, model_state, rest), fields, _ = computation(
            given["params"],
            given["opt_state"],
            given["model_state"],
            rest,
            given["model"],
            given["root_rng"],
            given["batch"],
            None,
        )
        after = {"params": params, "opt_state": opt_state, "model_state": model_state}
        return {**fields, **after, "loss_fn_state": rest[1]}

    given = {
        "params": state.params,
        "opt_state": state.opt_state,
        "model_state": state.model_state,
        "step": state.step,
        "loss_fn_state": state.loss_fn_state,
        "model": skeleton.constants,
        "root_rng": raw_key(state.root_rng),
        "batch": dict(batch),
    }
    carried = {path for path, leaf in paths.flatten(given).items() if nonfinite(_array(leaf))}
    return _traced(compute, given, run=lambda: _run_step(step, state, batch), excused=frozenset(carried))


def _scoped(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same optimiser, whose operations can be told from others by their scope."""
    inner = optax.with_extra_args_support(optimizer)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        with jax.named_scope(OPTIMIZER):
            return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _run_step(step: TrainStep, state: TrainState, batch: Any) -> tuple[str, ...]:
    """What is not finite after the step itself, run on a copy of the state, which it may donate."""
    try:
        after, context = step(copied(state), batch)
    except NonFiniteError:
        return ("loss_total",)
    names = [name for name in ("loss_total", "grads", "updates") if name in context.filled]
    fields = {name: getattr(context, name) for name in names}
    states = {name: getattr(after, name) for name in _JUDGED[3:]}
    before = {name: getattr(state, name) for name in _JUDGED[3:]}
    excused = {path for path, leaf in paths.flatten(before).items() if nonfinite(_array(leaf))}
    return tuple(path for path in _bad({**fields, **states}) if path not in excused)


# --- functions ----------------------------------------------------------------------------------------


def _of_function(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> Subject:
    given = _named(function, arguments, named)
    n = len(arguments)

    def compute(given: Mapping[str, Any]) -> Any:
        values = list(given.values())
        return {"result": function(*values[:n], **dict(zip(named, values[n:], strict=True)))}

    def run() -> tuple[str, ...]:
        named_copies = {name: copied(value) for name, value in named.items()}
        return _bad({"result": function(*map(copied, arguments), **named_copies)})

    is_compiled = hasattr(function, "lower") and hasattr(function, "trace")  # what jax.jit gives
    return _traced(compute, given, run=run if is_compiled else None)


def _named(function: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names of the function's parameters."""
    names = [f"argument {number}" for number in range(len(arguments))]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    for number, parameter in enumerate(parameters[: len(arguments)]):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names[number] = parameter.name
    return {**dict(zip(names, arguments, strict=True)), **named}


# --- both ---------------------------------------------------------------------------------------------


def _traced(
    compute: Callable[[Any], Any],
    given: dict[str, Any],
    *,
    run: Callable[[], tuple[str, ...]] | None,
    excused: frozenset[str] = frozenset(),
) -> Subject:
    """The function with the arrays among its arguments as arguments, and all else as it is."""
    opened = {name: _opened(value) for name, value in given.items()}
    trees = {name: tree for name, (tree, _) in opened.items()}
    found, treedef = jax.tree_util.tree_flatten_with_path(trees)
    leaves = [leaf for _, leaf in found]
    traced = [number for number, leaf in enumerate(leaves) if _is_traced(leaf)]
    names = [paths.path_string(found[number][0]).removesuffix("/data_array") for number in traced]
    results: list[str] = []

    def flat(*arrays: Any) -> list[Any]:
        given = list(leaves)
        for number, array in zip(traced, arrays, strict=True):
            given[number] = array
        trees = treedef.unflatten(given)
        made = _leaves(compute({name: close(trees[name]) for name, (_, close) in opened.items()}))
        results.extend(made)
        return list(made.values())

    arrays = [leaves[number] for number in traced]
    closed = jax.make_jaxpr(flat)(*arrays)
    return Subject(closed, arrays, names, results, excused, run)


def _is_traced(leaf: Any) -> bool:
    """True for arrays; whatever else there is among the arguments is taken as it is."""
    return hasattr(leaf, "dtype") and leaf_of(leaf).kind in (NUMBERS, KEY)


def _opened(value: Any) -> tuple[Any, Callable[[Any], Any]]:
    """A value as a tree of arrays, and the way back: a model gives its parameters out of its variables."""
    if isinstance(value, TrainState) or not models.is_model(value):
        return value, lambda tree: tree
    skeleton, params, model_state = models.split(value)
    return (params, model_state, skeleton), lambda tree: models.bind(tree[2], tree[0], tree[1])


def _array(leaf: Any) -> Any:
    return getattr(leaf, "data_array", leaf)


def _leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a result by path; whatever else it holds cannot fail to be finite."""
    return {path: _array(leaf) for path, leaf in paths.flatten(tree).items() if hasattr(leaf, "dtype")}


def _bad(tree: Any) -> tuple[str, ...]:
    return tuple(path for path, leaf in _leaves(tree).items() if nonfinite(leaf))
