"""Losses declared by paths: what each compares, how much it weighs, which examples count."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from toolshed import paths
from toolshed.batches import over_later_axes
from toolshed.errors import LossError
from toolshed.taps import tapped_now

Weight = float | Callable[[jax.Array], Any]


class Loss:
    """One term of a training loss.

    Args:
      fn: a loss of optax, or any function of the values at the paths, in their order. It gives one
        value for each example, whose mean is taken, or a scalar. With an argument called ``mask`` it is
        given the mask, or None, and does the reduction itself.
      *inputs: paths: ``preds``, ``aux/logits``, ``batch/label``, ``interms/…``, ``params/**/weights``. A
        path with ``*`` gives a dict of all leaves that match.
      weight: a number, or a schedule: a function of the step's number.
      mask: the path of what counts, with the first axes of the values. None stands for ``batch/mask``,
        where the batch has one; False for no mask at all.
      sample_weight: the path of a weight for each example: the mean is weighted by it.
      **options: handed on to ``fn``.

    Raises:
      LossError: something is not of its kind.

    Example:
      >>> import optax
      >>> from toolshed.losses import Loss
      >>> xent = Loss(optax.softmax_cross_entropy_with_integer_labels, "preds", "batch/label")
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *inputs: str,
        weight: Weight = 1.0,
        mask: str | bool | None = None,
        sample_weight: str | None = None,
        **options: Any,
    ):
        if not callable(fn):
            raise LossError(f"Expected a function of arrays, got {paths.describe(fn)}.")
        if not inputs or not all(isinstance(path, str) for path in inputs):
            raise LossError(f"Expected the paths of what {_name(fn)} takes, as strings; got {inputs!r}.")
        if not callable(weight) and not isinstance(weight, (int, float)):
            raise LossError(
                f"weight is {paths.describe(weight)}; expected a number or a function of the step."
            )
        if mask is True:
            raise LossError("mask is True; expected a path, None for batch/mask, or False for no mask.")
        self.fn, self.inputs, self.weight = fn, inputs, weight
        self.mask, self.sample_weight, self.options = mask, sample_weight, options
        self._takes_mask = "mask" in _parameters(fn)

    def value(self, name: str, values: Mapping[str, Any]) -> jax.Array:
        """The loss of a batch, before its weight: a scalar.

        Args:
          name: the name of this loss, for messages.
          values: what the paths lead into, by their first segment.

        Raises:
          LossError: a mask does not line up with the losses of the examples.
          ContextKeyError: a path leads nowhere.
        """
        arguments = [at(values, path) for path in self.inputs]
        mask = self._mask(values)
        if self._takes_mask:
            return self._scalar(name, self.fn(*arguments, mask=mask, **self.options))
        if mask is not None:
            arguments = [
                argument if path.startswith("params") else _without_padding(argument, jnp.asarray(mask) != 0)
                for path, argument in zip(self.inputs, arguments, strict=True)
            ]
        losses = jnp.asarray(self.fn(*arguments, **self.options))
        if losses.ndim == 0:
            if mask is not None and isinstance(self.mask, str):
                raise LossError(
                    f"The loss {name!r} has the mask {self.mask!r}, but {_name(self.fn)} gives a scalar: what"
                    " was masked cannot be taken out of it. Give one value for each example, or take the mask"
                    " as an argument called `mask`."
                )
            return losses
        weights = jnp.ones(losses.shape)
        if mask is not None:
            real = self._lined_up(name, mask, losses, self.mask or "batch/mask") != 0
            losses, weights = jnp.where(real, losses, 0), jnp.where(real, weights, 0)
        if self.sample_weight is not None:
            sample_weight = at(values, self.sample_weight)
            weights = weights * self._lined_up(name, sample_weight, losses, self.sample_weight)
        total = weights.sum()
        return (losses * weights).sum() / jnp.where(total > 0, total, 1)

    def weight_at(self, step: Any) -> Any:
        """What this loss is multiplied by in the sum of all."""
        return self.weight(step) if callable(self.weight) else self.weight

    def _mask(self, values: Mapping[str, Any]) -> Any:
        if self.mask is False:
            return None
        if self.mask is None:
            return values["batch"].get("mask")
        return at(values, str(self.mask))

    def _lined_up(self, name: str, weights: Any, losses: jax.Array, where: Any) -> jax.Array:
        weights = jnp.asarray(weights)
        by_loss = over_later_axes(weights, losses.shape)
        if by_loss is None:
            raise LossError(
                f"{where} is {paths.describe(weights)}, and the loss {name!r} has {paths.describe(losses)}"
                " values: it needs their first axes. Name another path, or leave it out with mask=False."
            )
        return by_loss

    def _scalar(self, name: str, loss: Any) -> jax.Array:
        loss = jnp.asarray(loss)
        if loss.ndim:
            raise LossError(
                f"{_name(self.fn)} took the mask and gave {paths.describe(loss)} for the loss"
                f" {name!r}; expected a scalar, since the mask is its own to apply."
            )
        return loss

    def __repr__(self) -> str:
        return f"Loss({_name(self.fn)}, {', '.join(map(repr, self.inputs))}, weight={self.weight})"


class Losses:
    """Several named losses of one forward pass, as a loss function.

    Its ``aux`` is what the forward pass gave, with ``loss_states``: the value of each loss before its
    weight. The sum of all, weighted, is what is differentiated. Made by `collection`.

    Attributes:
      forward: the forward pass.
      losses: the losses by name.
    """

    handles_mask = True  # evaluation may pad a batch

    def __init__(
        self,
        forward: Callable[..., Any],
        losses: Mapping[str, Loss],
        *,
        step: Any = None,
        params: Mapping[str, Any] | None = None,
    ):
        self.forward, self.losses = forward, dict(losses)
        self._step, self._params = step, params

    def knowing(self, *, step: Any, params: Mapping[str, Any]) -> Losses:
        """The same losses in one step, whose number schedules need, and params those that look at them."""
        return Losses(self.forward, self.losses, step=step, params=params)

    def __call__(self, *, model: Any, state: Any, rng: jax.Array, **batch: Any) -> tuple[jax.Array, Any, Any]:
        """The weighted sum of the losses; see `toolshed.LossFunction`."""
        out = self.forward(model=model, rng=rng, **batch)
        aux = dict(out) if isinstance(out, Mapping) else {"preds": out}
        values = {
            "batch": batch,
            "aux": aux,
            "interms": tapped_now(),
            "params": {} if self._params is None else self._params,
            **{name: aux[name] for name in ("preds", "interms") if name in aux},
        }
        states = {name: loss.value(name, values) for name, loss in self.losses.items()}
        step = jnp.zeros((), jnp.int32) if self._step is None else self._step
        total = sum(self.losses[name].weight_at(step) * value for name, value in states.items())
        return jnp.asarray(total), state, {**aux, "loss_states": states}

    def __repr__(self) -> str:
        return ", ".join(f"{name}={loss}" for name, loss in self.losses.items())


def collection(forward: Callable[..., Any], **losses: Loss) -> Losses:
    """Several named, weighted, masked losses as one loss function.

    Args:
      forward: the forward pass, called as ``forward(model=…, rng=…, **batch)``: with the names that it
        takes of the batch's, or all. It gives the model's output, which the paths call ``preds``, or a
        dict, whose entries are ``aux/…`` (and ``preds``, if it has one).
      **losses: by name.

    Raises:
      LossError: there is no loss, or something that is none.

    Example:
      >>> import optax, toolshed
      >>> from penzai import pz
      >>> from toolshed.losses import Loss
      >>> def forward(*, model, rng, x, **rest):
      ...     return model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
      >>> loss_fn = toolshed.losses.collection(
      ...     forward,
      ...     fit=Loss(optax.squared_error, "preds", "batch/y"),
      ...     decay=Loss(optax.tree.norm, "params/**/weights", weight=1e-4),
      ... )
    """
    if not callable(forward):
        raise LossError(f"Expected the forward pass as a function, got {paths.describe(forward)}.")
    if not losses:
        raise LossError("Expected at least one loss by name: collection(forward, fit=Loss(…)).")
    for name, loss in losses.items():
        if not isinstance(loss, Loss):
            raise LossError(f"The loss {name!r} is {paths.describe(loss)}; expected a toolshed.losses.Loss.")
    return Losses(forward, losses)


def at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a path, or for one with ``*`` a dict of all that match; named arrays as arrays.

    Raises:
      ContextKeyError: nothing is there.
    """
    return jax.tree.map(_plain, paths.find(values, path, "what a loss can see"), is_leaf=paths.is_arraylike)


def _without_padding(argument: Any, mask: jax.Array) -> Any:
    """The argument with a real example in the place of each that is masked.

    To leave a loss out afterwards is not enough: its gradient would be 0 times that of, say, a missing
    target, which is NaN.
    """

    def replaced(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        real = over_later_axes(mask, leaf.shape)
        if real is None:
            return leaf
        example = leaf.reshape(-1, *leaf.shape[mask.ndim :])[jnp.argmax(mask)]
        return jnp.where(real, leaf, example)

    return jax.tree.map(replaced, argument)


def _plain(leaf: Any) -> Any:
    """A named array without its names, in their order; anything else as it is."""
    return leaf.unwrap(*leaf.named_shape) if hasattr(leaf, "named_shape") else leaf


def _parameters(fn: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return {}


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
