"""A watch: computes statistics of what steps know, beside the steps, so that no bit of them changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from toolshed import paths
from toolshed.errors import RunError
from toolshed.keys import raw_key
from toolshed.run.leaf_history import STATISTICS, LeafHistory
from toolshed.run.parts import whole_number
from toolshed.run.publisher import Publisher
from toolshed.state import TrainState
from toolshed.training import Trainer
from toolshed.training.context import FIELDS
from toolshed.training.program import Computation, Skeleton


class LeafWatch:
    """Statistics of the arrays of a step that match a pattern. Belongs to the run's thread.

    It is given what a step handed out, or computes the watched part of a step again from the same state and
    batch, in a program of its own: gradients cost one more pass forward and back then, parameters next to
    nothing. What it finds stays on the device until it is handed over.

    Args:
      trainer: whose steps.
      pattern: paths into a Context.
      every: in every how many steps.
      statistics: names in `STATISTICS`.

    Attributes:
      field: the field of the Context in which the arrays are.
      history: what was seen; None before `begin`.
    """

    def __init__(self, trainer: Trainer, pattern: str, every: int, statistics: Sequence[str]):
        self.field = pattern.partition("/")[0] if isinstance(pattern, str) else ""
        if self.field not in FIELDS:
            raise RunError(
                f"Cannot watch {pattern!r}; expected paths into a Context, such as 'grads/**',"
                " 'updates/**/weights' or 'params/**'."
            )
        unknown = [name for name in statistics if name not in STATISTICS]
        if unknown or not statistics or isinstance(statistics, str):
            raise RunError(f"Cannot take {statistics!r}; expected some of {', '.join(STATISTICS)}.")
        self.pattern, self.statistics = pattern, tuple(statistics)
        self.every = whole_number("every", every, 1)
        self.history: LeafHistory | None = None
        self._trainer = trainer
        self._for: Any = None  # the skeleton that the program is for
        self._paths: tuple[str, ...] = ()
        self._pending: list[tuple[int, jax.Array]] = []

    def begin(self, state: TrainState, batch: Any, publisher: Publisher) -> LeafHistory:
        """Finds out which arrays there are, without computing them.

        Raises:
          RunError: none matches.
        """
        self._prepare(state)
        jax.eval_shape(self._again, *self._arguments(state, batch))
        self.history = LeafHistory(self.pattern, self.every, self.statistics, self._paths, publisher.history)
        return self.history

    def look(self, state: TrainState, number: int, batch: Any) -> None:
        """Looks at the step that is about to be made; waits for nothing.

        Raises:
          RunError: the model has changed, so that there are other arrays now.
        """
        if state.model_without_params is not self._for:
            self._prepare(state)
        self._keep(number, self._again(*self._arguments(state, batch)))

    def take(self, number: int, fields: dict[str, Any]) -> None:
        """Looks at what a step handed out, by field of the Context; waits for nothing.

        Raises:
          RunError: there are other arrays now.
        """
        self._keep(number, self._statistics(fields))

    def _keep(self, number: int, found: jax.Array) -> None:
        if self.history is not None and self._paths != self.history.paths:
            raise RunError(f"The arrays that match {self.pattern!r} are others now. Watch them anew.")
        self._pending.append((number + 1, found))

    def hand_over(self, branch: str, publisher: Publisher) -> None:
        """Has what was found written down; the publisher waits for the device."""
        pending, self._pending = self._pending, []
        history = self.history
        if pending and history is not None:

            def write() -> None:
                for (step, _), row in zip(pending, jax.device_get([row for _, row in pending]), strict=True):
                    history.append(branch, step, row)

            publisher.later(write)

    def _prepare(self, state: TrainState) -> None:
        self._for = state.model_without_params
        self._skeleton = Skeleton(self._for)
        computation = Computation(
            state.replace(metrics=None),
            self._skeleton,
            loss_fn=self._trainer.loss_fn,
            gradient_strategy=self._trainer.gradient_strategy,
            outputs=(self.field,),
            record=(),
            steps_per_call=1,
            check_finite=False,
        )
        self._statistics = jax.jit(self._look)
        self._again = jax.jit(lambda *arguments: self._look(computation.fields(*arguments)))

    def _arguments(self, state: TrainState, batch: Any) -> tuple[Any, ...]:
        carried = (state.params, state.opt_state, state.model_state, (state.step, state.loss_fn_state, None))
        return *carried, self._skeleton.constants, raw_key(state.root_rng), batch

    def _look(self, fields: dict[str, Any]) -> jax.Array:
        """The statistics of the arrays that match; float32[leaves, statistics]."""
        leaves = paths.flatten(fields)
        arrays = {path: getattr(leaf, "data_array", leaf) for path, leaf in leaves.items()}
        inexact = {path: x for path, x in arrays.items() if _is_inexact(x)}
        self._paths = tuple(paths.match(self.pattern, inexact))
        if not self._paths:
            close = paths.nearest(self.pattern, inexact, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RunError(f"No array of a step matches {self.pattern!r}.{hint}")
        rows = [[STATISTICS[name](_wide(inexact[path])) for name in self.statistics] for path in self._paths]
        return jnp.stack([jnp.stack(row) for row in rows]).astype(jnp.float32)


def _is_inexact(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.size > 0


def _wide(leaf: Any) -> Any:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
