"""What the benchmark trains: four tasks, and their models in penzai's two APIs.

The models of the other libraries have the same layers and sizes (`peer_models`). They are comparable,
not equal: each library initialises, and some round, in their own way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peer_models
from peer_models import BLOCKS, HEADS, NEURONS, SEQUENCE, VOCABULARY, WIDTH
from penzai import pz
from penzai.models.simple_mlp import MLP
from penzai.models.transformer.variants import llamalike_common

LEAVES, LEAF_SIZE = 2000, 8

Forward = Callable[[Any, jax.Array], Any]  # (model, x) -> what the task's loss takes


class Task(NamedTuple):
    """One model to train, in each library that has it.

    Attributes:
      name: its letter.
      about: what it is, in a line.
      batch: ``x`` and ``y``, on the device.
      loss: ``(preds, y) -> scalar``.
      optimizer: of optax.
      models: by library, a function that builds ``(model, forward)``.
      stacked: whether several steps in one dispatch are measured too.
    """

    name: str
    about: str
    batch: dict[str, jax.Array]
    loss: Callable[[Any, jax.Array], jax.Array]
    optimizer: optax.GradientTransformation
    models: dict[str, Callable[[], tuple[Any, Forward]]]
    stacked: bool = False


def tiny_mlp() -> Task:
    """A: nearly all of a step is the cost of calling it."""
    rng = np.random.default_rng(0)
    x = _twice(rng.normal(size=(32, 2)).astype(np.float32))
    noise = 0.3 * rng.normal(size=(64, 1))
    y = (np.sin(3 * x[:, :1]) + x[:, 1:] + noise).astype(np.float32)
    return Task(
        "A",
        "MLP 2-32-32-1, batch 64, squared error, adam",
        _on_device(x, y),
        lambda preds, y: jnp.mean((preds - y) ** 2),
        optax.adam(1e-3),
        _mlps([2, 32, 32, 1]),
        stacked=True,
    )


def digits_mlp() -> Task:
    """B: a small model on real images, where arithmetic outweighs the call."""
    from sklearn.datasets import load_digits  # heavy, so only where it is used

    images, labels = load_digits(return_X_y=True)
    x, y = _twice((images[:64] / 16).astype(np.float32)), _twice(labels[:64].astype(np.int32))
    y[:16] = (y[:16] + 1) % 10  # their second copies keep the true label
    return Task(
        "B",
        "MLP 64-256-256-10, batch 128 of scikit-learn's digits, cross-entropy, adam",
        _on_device(x, y),
        _cross_entropy,
        optax.adam(1e-3),
        _mlps([64, 256, 256, 10]),
        stacked=True,
    )


def transformer() -> Task:
    """C: many leaves, each worth its call."""
    rng = np.random.default_rng(0)
    x = _twice(rng.integers(VOCABULARY, size=(2, SEQUENCE)).astype(np.int32))
    y = rng.integers(VOCABULARY, size=(4, SEQUENCE)).astype(np.int32)
    return Task(
        "C",
        f"transformer of {BLOCKS} blocks, width {WIDTH}, {HEADS} heads, batch 4 of {SEQUENCE} tokens,"
        " 134 parameters, cross-entropy, adam",
        _on_device(x, y),
        _cross_entropy,
        optax.adam(1e-3),
        {
            "penzai": _transformer_penzai,
            "penzai v1": _transformer_v1,
            "flax": lambda: peer_models.flax_transformer(*_transformer_values()),
            "equinox": lambda: peer_models.equinox_transformer(*_transformer_values()),
        },
        stacked=True,
    )


def many_leaves() -> Task:
    """D: very many small leaves. Each is a regression of its own, so the program stays flat.

    The loss is the sum of their mean squared errors. The noise in ``y`` is nothing that they could fit.
    """
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(4, LEAF_SIZE)).astype(np.float32) for _ in range(2))
    values = rng.normal(size=(LEAVES, LEAF_SIZE)).astype(np.float32)
    return Task(
        "D",
        f"{LEAVES:,} parameters of {LEAF_SIZE} floats, squared error, sgd with momentum",
        _on_device(x, y),
        lambda preds, y: sum(jnp.sum((pred - y) ** 2) for pred in preds) / y.size,
        optax.sgd(1e-3, momentum=0.9),
        {
            "penzai": lambda: _leaves_penzai(values),
            "penzai v1": lambda: _leaves_v1(values),
            "flax": lambda: peer_models.flax_leaves(values),
            "equinox": lambda: peer_models.equinox_leaves(values),
        },
    )


TASKS: dict[str, Callable[[], Task]] = {
    "A": tiny_mlp,
    "B": digits_mlp,
    "C": transformer,
    "D": many_leaves,
}


def _on_device(x: np.ndarray, y: np.ndarray) -> dict[str, jax.Array]:
    return {"x": jnp.asarray(x), "y": jnp.asarray(y)}


def _twice(examples: np.ndarray) -> np.ndarray:
    """Each example twice, to be given two targets that differ.

    No model can fit both, so gradients stay away from zero, where denormal numbers make a step on the
    CPU several times slower.
    """
    return np.concatenate([examples, examples])


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _mlps(sizes: list[int]) -> dict[str, Callable[[], tuple[Any, Forward]]]:
    return {
        "penzai": lambda: (MLP.from_config(jax.random.key(0), sizes), _call_named),
        "penzai v1": lambda: _mlp_v1(sizes),
        "flax": lambda: peer_models.flax_mlp(sizes),
        "equinox": lambda: peer_models.equinox_mlp(sizes),
        "keras": lambda: peer_models.keras_mlp(sizes),
    }


def _call_named(model: Any, x: jax.Array) -> jax.Array:
    return model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")


def _mlp_v1(sizes: list[int]) -> tuple[Any, Forward]:
    from penzai.deprecated.v1 import pz as v1
    from penzai.deprecated.v1.example_models import simple_mlp

    model = simple_mlp.MLP.from_config(sizes)
    return v1.nn.initialize_parameters(model, jax.random.key(0)), _call_named


def _transformer_penzai() -> tuple[Any, Forward]:
    config = llamalike_common.LlamalikeTransformerConfig(
        num_kv_heads=HEADS,
        query_head_multiplier=1,
        embedding_dim=WIDTH,
        projection_dim=WIDTH // HEADS,
        mlp_hidden_dim=NEURONS,
        num_decoder_blocks=BLOCKS,
        vocab_size=VOCABULARY,
        mlp_variant="geglu_approx",
        tie_embedder_and_logits=True,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
    )
    model = llamalike_common.build_llamalike_transformer(config, jax.random.key(0))
    return model, lambda model, x: model(pz.nx.wrap(x, "batch", "seq")).unwrap("batch", "seq", "vocabulary")


def _transformer_values() -> tuple[list[jax.Array], peer_models.Apply]:
    """The values of penzai's transformer, and its forward pass as a function of them."""
    model, forward = _transformer_penzai()
    skeleton, variables = pz.unbind_params(model, freeze=True)
    values, structure = jax.tree.flatten(variables)

    def apply(values: list[jax.Array], x: jax.Array) -> jax.Array:
        return forward(pz.bind_variables(skeleton, jax.tree.unflatten(structure, values)), x)

    return values, apply


def _transformer_v1() -> tuple[Any, Forward]:
    """Gemma as penzai v1 has it, with a norm after each residual branch as in the others."""
    from penzai.deprecated.v1 import pz as v1
    from penzai.deprecated.v1.example_models.gemma import model_core

    config = model_core.GemmaTransformerConfig(
        num_heads=HEADS,
        embedding_dim=WIDTH,
        projection_dim=WIDTH // HEADS,
        single_kv_head=False,
        mlp_hidden_dim=NEURONS,
        num_decoder_blocks=BLOCKS,
        vocab_size=VOCABULARY,
        parameter_dtype=jnp.float32,
        activation_dtype=jnp.float32,
    )
    number = itertools.count()

    def with_post_norm(residual: Any) -> Any:
        norm = v1.nn.RMSLayerNorm.from_config({"embedding": WIDTH})
        norm = v1.nn.add_parameter_prefix(f"post_norm_{next(number)}", norm)
        return v1.nn.Residual(v1.nn.Sequential([*residual.delta.sublayers, norm]))

    model = model_core.GemmaTransformer.from_config(config)
    model = v1.select(model).at_instances_of(v1.nn.Residual).apply(with_post_norm)

    def forward(model: Any, x: jax.Array) -> jax.Array:
        inputs = model_core.GemmaInputs.from_basic_segments(pz.nx.wrap(x, "batch", "seq"))
        return model(inputs).unwrap("batch", "seq", "vocabulary")

    return v1.nn.initialize_parameters(model, jax.random.key(0)), forward


@pz.pytree_dataclass
class Leaves(pz.nn.Layer):
    """Named arrays as parameters, of either API."""

    leaves: list[Any]

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        return peer_models.regressions([leaf.value.unwrap("features") for leaf in self.leaves], x)


def _leaves_penzai(values: np.ndarray) -> tuple[Any, Forward]:
    named = [pz.nx.wrap(jnp.asarray(value), "features") for value in values]
    leaves = [pz.Parameter(label=f"leaf_{i}", value=value) for i, value in enumerate(named)]
    return Leaves(leaves), lambda model, x: model(x)


def _leaves_v1(values: np.ndarray) -> tuple[Any, Forward]:
    from penzai.deprecated.v1 import pz as v1

    named = [pz.nx.wrap(jnp.asarray(value), "features") for value in values]
    leaves = [v1.nn.Parameter(name=f"leaf_{i}", value=value) for i, value in enumerate(named)]
    return Leaves(leaves), lambda model, x: model(x)
