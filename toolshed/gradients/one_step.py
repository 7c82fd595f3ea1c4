"""The one-step approximation: recurrence differentiated as if each step were the first."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from toolshed.errors import LossError
from toolshed.gradients.recurrence import recurrent_p
from toolshed.gradients.strategy import GradientStrategy, LossOfParams, backprop


@dataclasses.dataclass(frozen=True)
class OneStepApproximation:
    """The gradient truncated to one step of recurrence.

    What a model marks with `recurrent` is a constant to the gradient, so that each step's gradient stays
    within that step: h_t = f(stop_gradient(h_{t-1}), x_t). For a model iterated to a fixed point
    (`fixed_point`) only the last application is differentiated, the first term of the series that the
    exact gradient is there; memory does not grow with the number of iterations. It is an approximation,
    good where a step forgets most of the one before: `compare` measures it.

    The loss and all else of the forward pass are those of the other strategies. Derivatives that the
    loss function takes itself stay exact.

    Attributes:
      strategy: how the gradients of the truncated loss are found.

    Raises:
      LossError: while tracing: the loss function marks no recurrence, or marks one where the gradient
        is given by a rule of its own (``jax.custom_vjp``, ``jax.custom_jvp``).

    Example:
      z = a z + b, with a = 0.5 and b = 1, comes to rest at 2. There dz/da = z / (1 - a) = 4; one step of
      it alone has dz/da = z = 2.

      >>> import jax, jax.numpy as jnp, toolshed
      >>> def loss_fn(params, carry, batch, rng):
      ...     rest = lambda z: params["a"] * z + 1.0
      ...     return toolshed.gradients.fixed_point(rest, jnp.zeros(()), steps=50), (carry, {})
      >>> for strategy in [toolshed.gradients.OneStepApproximation(), toolshed.gradients.Backprop()]:
      ...     _, _, grads = strategy(loss_fn, {"a": jnp.array(0.5)}, (), {}, jax.random.key(0))
      ...     print(round(float(grads["a"]), 4))
      2.0
      4.0

    References:
      Wang et al., Hierarchical Reasoning Model, arXiv:2506.21734, section 2. Bai et al., Deep Equilibrium
      Models, arXiv:1909.01377.
    """

    strategy: GradientStrategy = backprop

    def __call__(
        self, loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Any], Any]:
        """Loss, what was carried and aux, and truncated gradients."""

        from jax.extend.core import jaxpr_as_fun  # slow to import

        def truncated(*arguments: Any) -> Any:
            # A function of its own each time: jax keeps what it traced by function object.
            traced, result = jax.make_jaxpr(lambda *x: loss_fn(*x), return_shape=True)(*arguments)
            cut = _Cut()
            program = cut.value(traced)
            if not cut.marks:
                raise LossError(_NO_MARK)
            leaves = jaxpr_as_fun(program)(*jax.tree.leaves(arguments))
            return jax.tree.unflatten(jax.tree.structure(result), leaves)

        return self.strategy(truncated, params, carry, batch, rng)


_NO_MARK = (
    "OneStepApproximation found no recurrence in this loss function. Mark what a step takes over from the"
    " one before, at the head of the step or of the scan's body: h = toolshed.gradients.recurrent(h). Or"
    " iterate with toolshed.gradients.fixed_point(f, start, steps=…)."
)


class _Cut:
    """Replaces marks of recurrence by ``stop_gradient``, in a traced program and all those inside it.

    A program that is used many times is rewritten once, and one without marks is kept as it is, so that
    what jax compiled for it is found again.

    Attributes:
      marks: how many marks were found.
    """

    def __init__(self) -> None:
        from jax.extend import core  # slow to import

        self._core, self._primitives = core, core.primitives
        self.marks = 0
        self._done: dict[int, tuple[Any, Any]] = {}  # by id; the original is kept, so that ids stay its own

    def value(self, value: Any) -> Any:
        """A program, or programs in a tuple or list, rewritten; anything else as it is."""
        if isinstance(value, (self._core.ClosedJaxpr, self._core.Jaxpr)):
            if id(value) not in self._done:
                rewritten = (
                    self._closed(value) if isinstance(value, self._core.ClosedJaxpr) else self._program(value)
                )
                self._done[id(value)] = (value, rewritten)
            return self._done[id(value)][1]
        if isinstance(value, (tuple, list)):
            new = [self.value(x) for x in value]
            if all(x is y for x, y in zip(new, value, strict=True)):
                return value
            return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)
        return value

    def _closed(self, closed: Any) -> Any:
        program = self.value(closed.jaxpr)
        return closed if program is closed.jaxpr else closed.replace(jaxpr=program)

    def _program(self, program: Any) -> Any:
        equations = [self._equation(equation) for equation in program.eqns]
        same = all(x is y for x, y in zip(equations, program.eqns, strict=True))
        return program if same else program.replace(eqns=equations)

    def _equation(self, equation: Any) -> Any:
        if equation.primitive is recurrent_p():
            self.marks += 1
            return equation.replace(primitive=self._primitives.stop_gradient_p, params={})
        params = {name: self.value(value) for name, value in equation.params.items()}
        if all(params[name] is equation.params[name] for name in params):
            return equation
        if equation.primitive in (self._primitives.custom_jvp_call_p, self._primitives.custom_vjp_call_p):
            raise LossError(
                "A recurrence is marked inside a function whose derivative is a rule of its own"
                " (jax.custom_jvp or jax.custom_vjp). OneStepApproximation cannot truncate that rule. Take"
                " the mark or the rule away."
            )
        return equation.replace(params=params)
