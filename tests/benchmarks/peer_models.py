"""The benchmark's models in Flax NNX, Equinox and Keras, which are imported only when they are used.

They have the layers and sizes of the penzai models in `models`, put together as each library's own
documentation does it.
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


def flax_transformer() -> tuple[Any, Callable[..., Any]]:
    """A decoder of NNX layers."""
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

    def forward(model: Any, x: jax.Array) -> jax.Array:
        hidden = _decoder(model, model["embed"](x), lambda layer, x: layer(x))
        return model["embed"].attend(hidden)

    return model, forward


def equinox_transformer() -> tuple[Any, Callable[..., Any]]:
    """A decoder of Equinox layers, which take one vector each."""
    import equinox as eqx

    keys = iter(jax.random.split(jax.random.key(0), 1 + BLOCKS * len(_LINEAR)))

    def block() -> Any:
        linear = {
            name: eqx.nn.Linear(*sizes, use_bias=False, key=next(keys)) for name, sizes in _LINEAR.items()
        }
        return linear | {name: eqx.nn.RMSNorm(WIDTH, use_bias=False) for name in _NORMS}

    table = jax.random.normal(next(keys), (VOCABULARY, WIDTH))
    model = {
        "embed": eqx.nn.Embedding(weight=table * WIDTH**-0.5),
        "blocks": [block() for _ in range(BLOCKS)],
        "final_norm": eqx.nn.RMSNorm(WIDTH, use_bias=False),
    }

    def each(layer: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(jax.vmap(layer))(x)

    def forward(model: Any, x: jax.Array) -> jax.Array:
        hidden = _decoder(model, each(model["embed"], x), each)
        return hidden @ model["embed"].weight.T

    return model, forward


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


def _decoder(model: Any, x: jax.Array, apply: Callable[[Any, jax.Array], jax.Array]) -> jax.Array:
    """The blocks of the decoder on embedded tokens, float32[batch, sequence, width]."""
    x = x * WIDTH**0.5
    for block in model["blocks"]:
        normed = apply(block["pre_attention"], x)
        query, key, value = (
            apply(block[name], normed).reshape(*x.shape[:2], HEADS, -1) for name in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(_rotate(query), _rotate(key), value, is_causal=True)
        x = x + apply(block["post_attention"], apply(block["output"], attended.reshape(x.shape)))
        normed = apply(block["pre_mlp"], x)
        gated = jax.nn.gelu(apply(block["gate"], normed)) * apply(block["up"], normed)
        x = x + apply(block["post_mlp"], apply(block["down"], gated))
    return apply(model["final_norm"], x)


def _rotate(x: jax.Array) -> jax.Array:
    """Rotary position embedding of float32[batch, sequence, heads, projection].

    References:
      J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864,
      with the halves of the projection as pairs.
    """
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
