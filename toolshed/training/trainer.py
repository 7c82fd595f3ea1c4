"""Trainer: a model, an optimiser and a loss function, ready to make, step, fit and evaluate states."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from toolshed import models, paths
from toolshed.data import feed, stack
from toolshed.errors import ModelError, NonFiniteError, StateError, ToolshedError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.interrupts import InterruptGuard
from toolshed.metrics import Collection
from toolshed.state import TrainState, check_key, check_metrics
from toolshed.training.context import Context
from toolshed.training.evaluation import Evaluation
from toolshed.training.incoming import IncomingLosses
from toolshed.training.lookahead import Lookahead
from toolshed.training.pace import Pace
from toolshed.training.program import Skeleton
from toolshed.training.step import TrainStep, build_train_step
from toolshed.training.stepper import Stepper
from toolshed.training.watches import EarlyStop, Monitor, Watch, checked_window, saving_in

# Numbers that no step has, to fold keys from that no step uses.
_INIT, _TRAIN = 0xFFFF_FFFD, 0xFFFF_FFFC

Report = Callable[[int, jax.Array, TrainState], None]


class Trainer:
    """What training needs beside a state: state in, state out.

    A trainer holds no state of training. It keeps compiled programs, and in `last_state` the newest
    state that `fit` made, so that nothing is lost when a cell is interrupted.

    Args:
      model: a model, or a function of a key that builds one.
      optimizer: an optax optimiser.
      loss_fn: see `toolshed.LossFunction`; losses declared by paths are one
        (`toolshed.losses.collection`).
      metrics: gathered in each step and in `evaluate`; see `toolshed.metrics.collection`.
      gradient_strategy: how gradients are found; see `toolshed.gradients`.
      steps_per_call: steps that `fit` makes in one dispatch. More than one pays for small models.
      check_finite: whether `fit` stops when a loss is NaN or infinite.

    Example:
      >>> import jax, jax.numpy as jnp, optax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> def loss_fn(*, model, state, rng, x, y):
      ...     preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
      ...     return jnp.mean((preds - y) ** 2), state, {"preds": preds}
      >>> mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 8, 1])
      >>> trainer = toolshed.Trainer(mlp, optax.adam(1e-2), loss_fn)
      >>> data = [{"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}]
      >>> state = trainer.fit(trainer.init(jax.random.key(1)), data, steps=10)
      >>> int(state.step)
      10
    """

    def __init__(
        self,
        model: Any,
        optimizer: optax.GradientTransformation,
        loss_fn: Callable[..., Any],
        *,
        metrics: Collection | None = None,
        gradient_strategy: GradientStrategy = backprop,
        steps_per_call: int = 1,
        check_finite: bool = True,
    ):
        check_metrics(metrics)
        self.model = model
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.metrics = metrics
        self.steps_per_call = steps_per_call
        self.check_finite = check_finite
        self._last_state: TrainState | None = None
        self._stepper: Stepper | None = None  # while fit steps in memory of its own

        self.gradient_strategy = gradient_strategy
        self._steps: dict[Any, TrainStep] = {}
        self._step_by_hand = self.build_step()
        self._step_in_fit = self.build_step(fields=(), donate=True)
        self._steps_in_fit = self.build_step(fields=(), donate=True, steps_per_call=steps_per_call)
        self._step_with_report = self.build_step(fields=("loss_total",))
        self._evaluate = Evaluation(loss_fn, metrics)
        self._predictions: dict[Any, Callable[..., Any]] = {}

    @property
    def last_state(self) -> TrainState | None:
        """The newest state that `fit` made, whatever ended it; None before."""
        return self._last_state if self._stepper is None else self._stepper.state

    @last_state.setter
    def last_state(self, state: TrainState | None) -> None:
        self._last_state = state
        self._stepper = None

    def build_step(self, **options: Any) -> TrainStep:
        """A training step of this trainer's loss function; options as for `build_train_step`.

        The same options give the same step, so that nothing is compiled twice.
        """
        key = tuple(sorted(options.items()))
        if key not in self._steps:
            self._steps[key] = build_train_step(
                self.loss_fn, gradient_strategy=self.gradient_strategy, **options
            )
        return self._steps[key]

    def init(self, rng: jax.Array) -> TrainState:
        """The state before the first step.

        Args:
          rng: a key. A model that is built here and the training get keys of their own from it.

        Raises:
          ModelError: ``model`` is neither a model nor a function that builds one.
        """
        check_key(rng)
        model = self.model
        if not models.is_model(model):
            if not callable(model):
                raise ModelError(
                    f"Expected a model or a function that builds one, got {paths.describe(model)}."
                )
            model = model(jax.random.fold_in(rng, _INIT))
        return self.make_state(model, rng=jax.random.fold_in(rng, _TRAIN))

    def make_state(self, model: Any, *, rng: jax.Array | None = None) -> TrainState:
        """The state before the first step, of a model with values of its own: pretrained, say.

        Args:
          model: a model with values.
          rng: the root key of training; by default one made of seed 0.
        """
        root_rng = jax.random.fold_in(jax.random.key(0), _TRAIN) if rng is None else rng
        return TrainState.initial_state(model, self.optimizer, root_rng, metrics=self.metrics)

    def step(self, state: TrainState, batch: dict[str, Any]) -> tuple[TrainState, Context]:
        """One training step by hand, with every field of the Context. ``state`` stays valid."""
        return self._step_by_hand(state, batch)

    def fit(
        self,
        state: TrainState,
        data: Iterable[dict[str, Any]],
        *,
        steps: int | None = None,
        report: Report | None = None,
        window: int | None = None,
        eval_data: Iterable[dict[str, Any]] | None = None,
        watch: Watch | Sequence[Watch] = (),
        checkpoints: Any = None,
    ) -> TrainState:
        """Trains, and returns the state after the last step. ``state`` stays valid.

        Args:
          state: where to start; its ``step`` goes on counting.
          data: batches by name: a stream, a list or any iterable.
          steps: how many steps, iterating ``data`` again as often as needed; None for one pass.
          report: called after each step as ``report(step, loss, state)`` with the number of steps done
            (counted from 1 in a fresh state), the loss as a device scalar that is fetched only if it is
            looked at, and the state, which may be kept. It may raise `EarlyStop`. With a report no
            memory is reused between steps, which makes small steps slower.
          window: steps between two looks at metrics; None for as many as ``data`` has batches. Metrics
            gather on the device, are fetched once at the end of a window, and begin anew in the next.
          eval_data: evaluated at the end of each window.
          watch: called at the end of each window as ``watch(step, values, state)``: one or several of
            `EarlyStopping`, `ReduceOnPlateau`, `KeepBest` or functions of yours. ``values`` are
            ``train/loss`` (the mean over the window's steps), ``train/…`` for each metric of the state,
            and ``eval/loss`` and ``eval/…`` with ``eval_data``. What one gives back, if anything, is
            the state to go on with. It may raise `EarlyStop`.
          checkpoints: a `toolshed.checkpoints.Repository` in which the state is saved at the end of each
            window, in the background, with the window's numbers and the position in the data where that
            is a `toolshed.data.Stream`.

        Raises:
          DataError: ``data`` gave no batch.
          NonFiniteError: a loss was NaN or infinite. Losses are looked at about twice a second, so the
            error comes some steps later; it names the step.
          ToolshedError: a watch monitors a value that there will not be.

        Whatever ends it early, Ctrl-C too, the state of the last completed step is in `last_state`. Only
        a failure of the device itself takes the steps since the start of this call with it.
        """
        _check_state(state)
        watches = (watch,) if callable(watch) else tuple(watch)
        if checkpoints is not None:
            watches = (*watches, saving_in(checkpoints, data))
        windowed = bool(watches) or eval_data is not None or window is not None
        if windowed:
            window = checked_window(window, data)
            self._start_watches(watches, state, eval_data)
        batches = feed(data, steps)
        if steps == 0:
            return state
        self.last_state = state
        try:
            if window is None:
                return self._run(state, batches, report)[0]
            return self._windows(state, batches, report, window, eval_data, watches)
        except EarlyStop:
            return self.last_state
        except BaseException as error:
            self._rescue(error, state)
            raise

    def _start_watches(self, watches: Sequence[Watch], state: TrainState, eval_data: Any) -> None:
        gathered = [] if state.metrics is None else state.metrics.names
        names = ["train/loss", *(f"train/{name}" for name in gathered)]
        if eval_data is not None:
            names += ["eval/loss", *(f"eval/{name}" for name in self._evaluate.metric_names)]
        for watch in watches:
            if not callable(watch):
                raise ToolshedError(f"Expected a watch to be a function, got {paths.describe(watch)}.")
            if isinstance(watch, Monitor):
                watch.check(names, state)
                watch.restart()

    def _windows(
        self,
        state: TrainState,
        batches: Iterator[Any],
        report: Report | None,
        window: int,
        eval_data: Any,
        watches: Sequence[Watch],
    ) -> TrainState:
        """Window after window, with a look at the metrics after each."""
        for first in batches:
            some = itertools.chain([first], itertools.islice(batches, window - 1))
            if state.metrics is not None:
                state = state.reset_metrics()
            state, loss = self._run(state, some, report)
            values = {"train/loss": loss}
            if state.metrics is not None:
                values |= {f"train/{name}": value for name, value in state.compute_metrics().items()}
            if eval_data is not None:
                values |= {f"eval/{name}": value for name, value in self.evaluate(state, eval_data).items()}
            step = int(state.step)
            for watch in watches:
                changed = watch(step, values, state)
                if changed is not None:
                    _check_state(changed)
                    self.last_state = state = changed
        return state

    def _run(
        self, state: TrainState, batches: Iterator[Any], report: Report | None
    ) -> tuple[TrainState, float]:
        """Trains on some batches: the last state, and the mean loss."""
        losses = IncomingLosses(check_finite=self.check_finite)
        if report is None:
            return self._loop(state, batches, losses), losses.mean
        return self._loop_reported(state, batches, report, losses), losses.mean

    def _rescue(self, error: BaseException, first: TrainState) -> None:
        """Sees to it that `last_state` can be used, and says in the error which one it is."""
        try:
            jax.block_until_ready(self.last_state)
        except Exception:  # the device failed in a step, and all that came after it is lost with it
            self.last_state = first
        assert self.last_state is not None
        step = int(self.last_state.step)
        if isinstance(error, NonFiniteError):
            error.state = self.last_state
        error.add_note(f"Training stopped after step {step}; its state is trainer.last_state.")

    def _loop(self, state: TrainState, batches: Iterator[Any], losses: IncomingLosses) -> TrainState:
        """Steps in memory of their own, donated from one to the next."""
        stepper = self._stepper = Stepper(state)
        tape, pace = self._steps_in_fit.tape(), Pace()
        with InterruptGuard() as guard:
            try:
                for step, some in self._calls(batches, pace):
                    guard.busy = True
                    stepper(step, some, tape)
                    guard.busy = False
                    if guard.pending:
                        guard.check()
                    if pace.is_time_to_look(len(some), stepper.most):
                        tape.turn()
                        losses.add_rows(tape.take_ready())
            finally:
                guard.busy = False
                self.last_state = stepper.state
            losses.add_rows(tape.take())
        return self.last_state

    def _calls(self, batches: Iterator[Any], pace: Pace) -> Iterator[tuple[TrainStep, list[Any]]]:
        """Which step to call with which batches; with ``steps_per_call``, k as one as far as they go."""
        k = self.steps_per_call
        if k == 1:
            ahead = Lookahead(lambda: (next(batches), None))
            with contextlib.suppress(StopIteration):
                while True:
                    yield self._step_in_fit, ahead.take(pace.at_once)
        while group := list(itertools.islice(batches, k)):
            if len(group) == k and len({_shapes(batch) for batch in group}) == 1:
                yield self._steps_in_fit, [stack(group)]
            else:
                yield from ((self._step_in_fit, [batch]) for batch in group)

    def _loop_reported(
        self, state: TrainState, batches: Iterator[Any], report: Report, losses: IncomingLosses
    ) -> TrainState:
        """Steps whose states may be kept by the caller, so none is donated."""
        count = int(state.step)
        unseen: list[tuple[int, Any]] = []
        for batch in batches:
            state, context = self._step_with_report(state, batch)
            self.last_state = state
            count += 1
            unseen.append((count - 1, context.loss_total))
            report(count, context.loss_total, state)
            while unseen and unseen[0][1].is_ready():
                losses.add(*unseen.pop(0))
        for step, loss in unseen:
            losses.add(step, loss)
        return state

    def predict(self, state: TrainState, *inputs: Any, **side_inputs: Any) -> Any:
        """The model's output for some inputs, without the randomness of training. Changes nothing.

        Args:
          state: whose model to use.
          *inputs: what the model is called with: arrays or named arrays.
          **side_inputs: by name, likewise.
        """
        _check_state(state)
        skeleton = Skeleton(models.evaluation_mode(state.model_without_params))

        def build() -> Callable[..., Any]:
            @jax.jit
            def run(constants: Any, params: Any, model_state: Any, inputs: Any, side_inputs: Any) -> Any:
                return skeleton.bind(constants, params, model_state).model(*inputs, **side_inputs)

            return run

        run = self._predictions.get(skeleton.identity)
        if run is None:
            run = self._predictions[skeleton.identity] = build()
        return run(skeleton.constants, state.params, state.model_state, inputs, side_inputs)

    def evaluate(
        self,
        state: TrainState,
        data: Iterable[dict[str, Any]],
        *,
        sharding: jax.sharding.Sharding | None = None,
    ) -> dict[str, Any]:
        """Loss and metrics over a data set, without the randomness of training.

        Every example counts once: a batch weighs as much as it has examples (see
        `toolshed.data.batch_size`), and padding not at all: a loss function that takes ``mask`` is a mean
        over the examples whose mask is true. If all metrics look at a mask, too, batches are filled up to
        one size, and compiled once. Neither the state nor a stream's position changes, and no key is used
        that a training step uses. Waits for the device once, at the end.

        Args:
          state: whose model.
          data: batches by name.
          sharding: how to lay batches out over several devices. A batch that does not divide by their
            number, and may not be filled up, is not laid out.

        Returns:
          ``loss`` and each of the trainer's metrics by name, without those of gradients and updates: a
          float each, or an array where the metric is one (a confusion matrix, say).

        Raises:
          DataError: ``data`` gave no batch.
        """
        _check_state(state)
        return self._evaluate(state, data, sharding)


def _check_state(state: Any) -> None:
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
    state.check_alive()


def _shapes(batch: Any) -> tuple[Any, ...]:
    return tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch))
