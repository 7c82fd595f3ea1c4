"""What a loss function is, and the check that one kept to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from toolshed import paths
from toolshed.errors import BatchError, LossError
from toolshed.taps import collecting


@runtime_checkable
class LossFunction(Protocol):
    """penzai's protocol for loss functions.

    Example:
      >>> def loss_fn(*, model, state, rng, x, y):
      ...     error = model(x) - y
      ...     return (error * error).mean(), state, {"preds": error + y}
    """

    def __call__(self, *, model: Any, state: Any, rng: jax.Array, **batch: Any) -> tuple[jax.Array, Any, Any]:
        """Computes the loss of one batch.

        Args:
          model: the whole model, bound. Inside a step its parameters cannot be assigned to; its state
            variables can, and the step carries them on.
          state: what this function returned as its new state at the last step.
          rng: this step's key, used by nothing else.
          **batch: the entries of the batch by name.

        Returns:
          ``(loss, new_state, aux)``: a scalar to be differentiated, the state for the next step in the
          structure of ``state``, and anything else that should be seen (a dict by custom; its entry
          ``preds`` becomes ``Context.preds``).
        """
        ...


def name_of(loss_fn: Callable[..., Any]) -> str:
    """The name to call a loss function by in a message."""
    return getattr(loss_fn, "__name__", type(loss_fn).__name__)


def check_is_batch(batch: Any) -> None:
    """Raises `BatchError` if this is no dict by name."""
    if not isinstance(batch, Mapping) or not all(isinstance(name, str) for name in batch):
        raise BatchError(
            f"Expected a batch as a dict by name, because the loss function takes its entries by name;"
            f" got {paths.describe(batch)}. Wrap it: {{'x': x, 'y': y}}."
        )


def call(
    loss_fn: Callable[..., Any],
    *,
    model: Any,
    state: Any,
    rng: jax.Array,
    batch: Mapping[str, Any],
    step: Any,
    params: Mapping[str, Any],
) -> tuple[jax.Array, Any, Any]:
    """Calls a loss function: its checked result, with what it and the model tapped in ``aux``.

    Args:
      loss_fn: the loss function; one with a method ``knowing`` is told step and params first.
      model: the bound model.
      state: the loss function's state.
      rng: this step's key.
      batch: by name.
      step: the step's number, int32[].
      params: by path.

    Raises:
      LossError: the loss function broke its protocol, or something was tapped and ``aux`` is no dict.
    """
    knowing = getattr(loss_fn, "knowing", None)
    told = loss_fn if knowing is None else knowing(step=step, params=params)
    with collecting() as tapped:
        result = told(model=model, state=state, rng=rng, **batch)
    loss, new_state, aux = check_result(loss_fn, result, state)
    if not tapped:
        return loss, new_state, aux
    aux = {} if aux is None else aux
    if not isinstance(aux, Mapping):
        raise LossError(
            f"{name_of(loss_fn)} returned {paths.describe(aux)} as aux; expected a dict, because what was"
            f" tapped ({', '.join(list(tapped)[:4])}) goes there as interms."
        )
    interms = aux.get("interms", {})
    twice = [name for name in tapped if name in interms]
    if twice:
        raise LossError(f"{twice[0]!r} is tapped, and {name_of(loss_fn)} returns it in aux['interms'], too.")
    return loss, new_state, {**aux, "interms": {**interms, **tapped}}


def takes_mask(loss_fn: Callable[..., Any]) -> bool:
    """True if a loss function says that it leaves out the examples whose ``mask`` is False."""
    if getattr(loss_fn, "handles_mask", False):
        return True
    try:
        return "mask" in inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):
        return False


def check_batch(loss_fn: Callable[..., Any], batch: Any) -> None:
    """Checks that ``loss_fn`` can be called with this batch.

    Raises:
      BatchError: the batch is no dict by name, or its names are not those that the function takes.
    """
    check_is_batch(batch)
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):
        return  # a builtin or a C function tells nothing; the call itself will
    reserved = [name for name in ("model", "state", "rng") if name in batch]
    if reserved:
        raise BatchError(
            f"The batch has an entry {reserved[0]!r}, a name that the step itself fills. Rename it."
        )
    try:
        signature.bind(model=None, state=None, rng=None, **batch)
    except TypeError as error:
        raise BatchError(
            f"{name_of(loss_fn)} cannot be called with this batch: {error}. It takes"
            f" {signature}, and the batch has {', '.join(batch) or 'no entry'}, beside model, state and rng"
            " from the step."
        ) from None


def check_result(loss_fn: Callable[..., Any], result: Any, state: Any) -> tuple[jax.Array, Any, Any]:
    """What a loss function returned, with the loss as a plain scalar.

    Raises:
      LossError: it is not ``(scalar, new_state, aux)``, or the state changed its structure.
    """
    name = name_of(loss_fn)
    if not isinstance(result, tuple) or len(result) != 3:
        came = f"a tuple of {len(result)}" if isinstance(result, tuple) else paths.describe(result)
        raise LossError(f"{name} returned {came}; expected (loss, new_state, aux), a tuple of three.")
    loss, new_state, aux = result
    if hasattr(loss, "named_shape") and not loss.named_shape:
        loss = loss.unwrap()
    is_scalar = isinstance(loss, (int, float)) or getattr(loss, "shape", None) == ()
    if not is_scalar or getattr(loss, "named_shape", None):
        raise LossError(
            f"{name} returned a loss of {paths.describe(loss)}; only a scalar can be differentiated."
            " Reduce it, to its mean say."
        )
    loss = jnp.asarray(loss)
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise LossError(
            f"{name} returned a loss of {paths.describe(loss)}; expected a real floating-point scalar."
        )
    before, after = jax.tree.structure(state), jax.tree.structure(new_state)
    if before != after:
        raise LossError(
            f"{name} returned a new state of another structure: it got {before}, it returned {after}."
            " Return `state` itself if there is nothing to carry."
        )
    was, now = paths.flatten(state), paths.flatten(new_state)
    for path in was:
        if _kind(was[path]) != _kind(now[path]):
            raise LossError(
                f"{name} returned a new state that differs at {path or 'its root'}: it got"
                f" {paths.describe(was[path])}, it returned {paths.describe(now[path])}. Keep shapes and"
                " dtypes, so that the step is compiled once."
            )
    return loss, new_state, aux


def _kind(value: Any) -> tuple[Any, Any]:
    return jnp.shape(value), jnp.result_type(value)
