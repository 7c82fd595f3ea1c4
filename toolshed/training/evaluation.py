"""Evaluation: loss and metrics of a whole data set, each example counted once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed import loss_function, models
from toolshed.data import batch_size, feed
from toolshed.metrics import Collection, Loss, Mapped, collection
from toolshed.state import TrainState
from toolshed.training.context import Context
from toolshed.training.program import Skeleton, fields_of_loss

_EVALUATE = 0xFFFF_FFFB  # a number that no step has, to fold a key from that no step uses
_OF_TRAINING = ("grads", "updates", "opt_state")


class Evaluation:
    """Evaluates states; keeps the programs that it compiled.

    Args:
      loss_fn: the loss function.
      metrics: what is computed beside the loss; those of gradients and updates are left out.
    """

    def __init__(self, loss_fn: Callable[..., Any], metrics: Collection | None):
        self._loss_fn = loss_fn
        self._programs: dict[Any, Callable[..., Any]] = {}
        known = {} if metrics is None else metrics.definition.metrics
        known = {name: metric for name, metric in known.items() if not _is_of_training(metric)}
        self._metrics = collection(**known) if known else None
        # Padding is safe only where all that sees it leaves it out.
        self._pads = loss_function.takes_mask(loss_fn) and all(map(_is_masked, known.values()))

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics."""
        return [] if self._metrics is None else self._metrics.names

    def __call__(
        self, state: TrainState, data: Iterable[dict[str, Any]], sharding: jax.sharding.Sharding | None
    ) -> dict[str, Any]:
        """The loss and each metric by name. Waits for the device once, at the end.

        Args:
          state: whose model.
          data: batches.
          sharding: how to lay the batches out over devices; None leaves them as they come.
        """
        skeleton = Skeleton(models.evaluation_mode(state.model_without_params))
        run = self._programs.get(skeleton.identity)
        if run is None:
            run = self._programs[skeleton.identity] = self._build(skeleton)
        in_order = getattr(data, "in_order", None)
        batches = self._even(feed(data if in_order is None else in_order(), None), sharding)
        root = jax.random.fold_in(state.root_rng, _EVALUATE)
        totals: Any = (jnp.zeros(()), jnp.zeros(()), None if self._metrics is None else self._metrics.states)
        fixed = (skeleton.constants, state.params, state.model_state, state.loss_fn_state, state.step)
        for number, batch in enumerate(batches):
            totals = run(*fixed, root, number, batch, totals)
        loss, weight, states = totals
        values = {} if self._metrics is None else self._metrics.with_states(states).compute()
        return {"loss": float(loss) / float(weight) if float(weight) else math.nan, **values}

    def _even(self, batches: Iterator[Any], sharding: jax.sharding.Sharding | None) -> Iterator[Any]:
        """The batches filled up to one size, where padding is left out, and laid out over the devices."""
        devices = 1 if sharding is None else len(sharding.device_set)
        size = 0
        for batch in batches:
            even = batch
            if self._pads:
                size = size or -(-_length(batch) // devices) * devices
                even = _padded(batch, max(size, _length(batch)))
            if sharding is not None and _length(even) % devices == 0:
                even = jax.device_put(even, sharding)
            yield even

    def _build(self, skeleton: Skeleton) -> Callable[..., Any]:
        @jax.jit
        def run(
            constants: Any,
            params: Any,
            model_state: Any,
            loss_fn_state: Any,
            step: Any,
            root: Any,
            number: Any,
            batch: Any,
            totals: Any,
        ) -> Any:
            loss_function.check_batch(self._loss_fn, batch)
            rng = jax.random.fold_in(root, number)
            loss, _, aux = loss_function.call(
                self._loss_fn,
                model=skeleton.bind(constants, params, model_state).model,
                state=loss_fn_state,
                rng=rng,
                batch=batch,
                step=step,
                params=params,
            )
            weight = jnp.asarray(batch_size(batch), jnp.float32)
            total, count, states = totals
            if self._metrics is not None:
                before = {"params": params, "model_state": model_state, "rng": rng}
                context = Context(step=step, batch=batch, **before, **fields_of_loss(loss, aux))
                states = self._metrics.with_states(states).update(context).states
            # where, not *: a batch of padding alone has no loss that means anything
            return total + jnp.where(weight > 0, loss * weight, 0), count + weight, states

        return run


def _is_masked(metric: Any) -> bool:
    """True if padding cannot change a metric."""
    if isinstance(metric, Mapped):
        return metric.path.split("/")[0] == "params"
    return isinstance(metric, Loss) or getattr(metric, "mask", None) is not None


def _is_of_training(metric: Any) -> bool:
    """True if a metric looks at what only a training step has."""
    fields = dataclasses.fields(metric) if dataclasses.is_dataclass(metric) else ()
    values = [getattr(metric, field.name) for field in fields]
    named = [path for value in values for path in (value if isinstance(value, tuple) else (value,))]
    return any(isinstance(path, str) and path.split("/")[0] in _OF_TRAINING for path in named)


def _length(batch: Mapping[str, Any]) -> int:
    """Entries along the first axis, real or not; 0 where there are named arrays or none."""
    shapes = [() if hasattr(leaf, "named_shape") else np.shape(leaf) for leaf in batch.values()]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    return lengths.pop() if len(lengths) == 1 else 0


def _padded(batch: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The batch filled up to ``size`` with its first example, whose ``mask`` is False."""
    length = _length(batch)
    if not length:
        return dict(batch)
    missing = size - length
    rows = np.concatenate([np.arange(length), np.zeros(missing, np.int64)])
    mask = np.asarray(batch.get("mask", np.ones(length, bool)))
    padded = {name: value[rows] if missing else value for name, value in batch.items()}
    padding = np.zeros((missing, *mask.shape[1:]), mask.dtype)
    return {**padded, "mask": np.concatenate([mask, padding])}
