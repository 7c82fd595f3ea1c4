"""The benchmark's models in Flax NNX, Equinox and Keras, which are imported only when they are used.

They have the layers and sizes of the penzai models in `models`, put together as each library's own
documentation does it. The transformers hold penzai's values in their own layers and compute with penzai's
forward pass: attention is written in many ways, and one library's is no measure of another's training.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BLOCKS, WIDTH, HEADS, NEURONS = 12, 64, 4, 128  # of the transformer
SEQUENCE, VOCABULARY = 64, 256

Apply = Callable[[list[jax.Array], jax.Array], jax.Array]  # a forward pass on a model's values and inputs

_LINEAR = {
    **dict.fromkeys(("query", "key", "value", "output"), (WIDTH, WIDTH)),
    **dict.fromkeys(("gate", "up"), (WIDTH, NEURONS)),
    "down": (NEURONS, WIDTH),
}
_NORMS = ("pre_attention", "post_attention", "pre_mlp", "post_mlp")


def flax_mlp(sizes: list[int]) -> tuple[Any, Callable[..., Any]]:
    """Linear layers with relu in between."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nnx.Linear(fan_in, fan_out, rngs=rngs), nnx.relu]
    return nnx.Sequential(*layers[:-1]), lambda model, x: model(x)


def equinox_mlp(sizes: list[int]) -> tuple[Any, Callable[..., Any]]:
    """`eqx.nn.MLP`, which wants all hidden layers equally wide."""
    import equinox as eqx

    depth = len(sizes) - 2
    model = eqx.nn.MLP(sizes[0], sizes[-1], sizes[1], depth, key=jax.random.key(0))
    return model, lambda model, x: jax.vmap(model)(x)


def keras_mlp(sizes: list[int]) -> tuple[Any, Callable[..., Any]]:
    """Dense layers with relu in between, not compiled yet."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(size, activation="relu") for size in sizes[1:-1]]
    model = keras.Sequential([keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1])])
    return model, lambda model, x: model(x)


def flax_transformer(values: list[jax.Array], apply: Apply) -> tuple[Any, Callable[..., Any]]:
    """The layers of a decoder in NNX, as holders of ``values``."""
    from flax import nnx

    rngs = nnx.Rngs(0)

    def block() -> Any:
        linear = {name: nnx.Linear(*sizes, use_bias=False, rngs=rngs) for name, sizes in _LINEAR.items()}
        return nnx.Dict(linear | {name: nnx.RMSNorm(WIDTH, rngs=rngs) for name in _NORMS})

    model = nnx.Dict(
        embed=nnx.Embed(VOCABULARY, WIDTH, rngs=rngs),
        blocks=nnx.List([block() for _ in range(BLOCKS)]),
        final_norm=nnx.RMSNorm(WIDTH, rngs=rngs),
    )
    nnx.update(model, jax.tree.unflatten(jax.tree.structure(nnx.state(model, nnx.Param)), values))
    return model, lambda model, x: apply(jax.tree.leaves(nnx.state(model, nnx.Param)), x)


def equinox_transformer(values: list[jax.Array], apply: Apply) -> tuple[Any, Callable[..., Any]]:
    """The layers of a decoder in Equinox, as holders of ``values``."""
    import equinox as eqx

    key = jax.random.key(0)

    def block() -> Any:
        linear = {name: eqx.nn.Linear(*sizes, use_bias=False, key=key) for name, sizes in _LINEAR.items()}
        return linear | {name: eqx.nn.RMSNorm(WIDTH, use_bias=False) for name in _NORMS}

    model = {
        "embed": eqx.nn.Embedding(VOCABULARY, WIDTH, key=key),
        "blocks": [block() for _ in range(BLOCKS)],
        "final_norm": eqx.nn.RMSNorm(WIDTH, use_bias=False),
    }
    model = jax.tree.unflatten(jax.tree.structure(model), values)
    return model, lambda model, x: apply(jax.tree.leaves(model), x)


def flax_leaves(values: np.ndarray) -> tuple[Any, Callable[..., Any]]:
    """A list of parameters."""
    from flax import nnx

    model = nnx.List([nnx.Param(jnp.asarray(value)) for value in values])
    return model, lambda model, x: regressions([leaf[...] for leaf in model], x)


def equinox_leaves(values: np.ndarray) -> tuple[Any, Callable[..., Any]]:
    """A list of arrays, which is a model to Equinox like any other pytree."""
    return [jnp.asarray(value) for value in values], regressions


def regressions(leaves: list[jax.Array], x: jax.Array) -> list[jax.Array]:
    """What each leaf makes of the inputs: 100 leaves at a time, which XLA compiles ten times faster.

    Args:
      leaves: float32[features] each.
      x: float32[batch, features].

    Returns:
      float32[100, batch, features] for each hundred.
    """
    return [jnp.stack(leaves[i : i + 100])[:, None] * x for i in range(0, len(leaves), 100)]
