"""Small models of every kind that toolshed takes, each with a loss function and a batch that fit it.

Each builder makes its model anew from fixed keys, so that two calls give equal models with no object in
common.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from penzai import pz
from penzai.models.simple_mlp import MLP, DropoutMLP
from penzai.models.transformer.model_parts import TransformerBlock
from penzai.models.transformer.variants import llamalike_common
from penzai.toolshed import lora

VOCABULARY = 11
BLOCKS = 2


class Case(NamedTuple):
    """A model, a loss function that calls it, and one batch for that function."""

    model: Any
    loss_fn: Callable[..., Any]
    batch: dict[str, jax.Array]


# --- loss functions and their batches ---------------------------------------------------------------


def regression_loss(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
    """Mean squared error of a model from features to one number."""
    del rng
    preds = model(pz.nx.wrap(x).tag("batch", "features")).untag("batch", "features").unwrap()
    return jnp.mean((preds - y) ** 2), state, {"preds": preds}


def random_regression_loss(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
    """`regression_loss` for a model with dropout, whose random stream comes in from the side."""
    stream = pz.RandomStream.from_base_key(rng, offset_label="of the call")
    named = pz.nx.wrap(x).tag("batch", "features")
    preds = model(named, random_stream=stream).untag("batch", "features").unwrap()
    return jnp.mean((preds - y) ** 2), state, {"preds": preds}


def language_loss(*, model: Any, state: Any, rng: jax.Array, tokens: jax.Array) -> Any:
    """Mean cross entropy of each token after the first, given those before it."""
    del rng
    logits = model(
        pz.nx.wrap(tokens[:, :-1]).tag("batch", "seq"),
        token_positions=pz.nx.arange("seq", tokens.shape[1] - 1),
    )
    preds = logits.untag("batch", "seq", "vocabulary").unwrap()
    loss = optax.softmax_cross_entropy_with_integer_labels(preds, tokens[:, 1:]).mean()
    return loss, state, {"preds": preds}


def regression_batch(examples: int = 8, features: int = 4) -> dict[str, jax.Array]:
    """``x`` float32[examples, features] and ``y`` float32[examples, 1]."""
    x = jax.random.normal(jax.random.key(10), (examples, features))
    return {"x": x, "y": jnp.sum(x, axis=1, keepdims=True)}


def language_batch(sequences: int = 3, length: int = 6) -> dict[str, jax.Array]:
    """``tokens`` int32[sequences, length]."""
    return {"tokens": jax.random.randint(jax.random.key(11), (sequences, length), 0, VOCABULARY)}


# --- layers that penzai does not have ---------------------------------------------------------------


@pz.pytree_dataclass
class WithStream(pz.nn.Layer):
    """A model that holds its own random stream and gives it to the layers inside."""

    body: pz.nn.Layer
    stream: pz.RandomStream

    def __call__(self, value: Any, /, **side_inputs: Any) -> Any:
        return self.body(value, random_stream=self.stream, **side_inputs)


@pz.pytree_dataclass
class RunningNorm(pz.nn.Layer):
    """Normalises by a running mean and variance, which each call moves towards those of its input.

    Its variables have no labels, so penzai makes labels from their ids.
    """

    mean: pz.StateVariable
    variance: pz.StateVariable
    momentum: float = dataclasses.field(metadata={"pytree_node": False})

    @classmethod
    def from_config(cls, features: int, momentum: float = 0.75) -> RunningNorm:
        zeros = pz.nx.zeros({"features": features})
        return cls(pz.StateVariable(zeros), pz.StateVariable(zeros + 1.0), momentum)

    def __call__(self, value: Any, /, **side_inputs: Any) -> Any:
        now = value.untag("batch")
        keep = self.momentum
        self.mean.value = self.mean.value * keep + pz.nx.nmap(jnp.mean)(now) * (1 - keep)
        self.variance.value = self.variance.value * keep + pz.nx.nmap(jnp.var)(now) * (1 - keep)
        return (value - self.mean.value) / pz.nx.nmap(jnp.sqrt)(self.variance.value + 1e-5)


@pz.pytree_dataclass
class Convolution(pz.nn.Layer):
    """Convolves images of side × side points, whose values lie along the axis ``features``, channels last."""

    kernel: pz.nn.ParameterLike
    side: int = dataclasses.field(metadata={"pytree_node": False})

    @classmethod
    def from_config(cls, name: str, side: int, channels: tuple[int, int], key: jax.Array) -> Convolution:
        kernel = 0.3 * jax.random.normal(key, (3, 3, *channels))
        return cls(pz.Parameter(value=pz.nx.wrap(kernel), label=f"{name}.kernel"), side)

    def __call__(self, value: Any, /, **side_inputs: Any) -> Any:
        kernel = self.kernel.value.unwrap()
        images = value.untag("batch", "features").unwrap()
        images = images.reshape(len(images), self.side, self.side, kernel.shape[2])
        kinds = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=kinds)
        return pz.nx.wrap(jax.nn.relu(out).reshape(len(out), -1)).tag("batch", "features")


@pz.pytree_dataclass
class Scale(pz.nn.Layer):
    """Multiplies by one parameter, so that two of them can hold the same one."""

    factor: pz.Parameter | pz.ParameterSlot

    def __call__(self, value: Any, /, **side_inputs: Any) -> Any:
        return value * self.factor.value


# --- models -----------------------------------------------------------------------------------------


def mlp() -> Case:
    """4 → 8 → 1: 49 parameters in 4 arrays."""
    model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1])
    return Case(model, regression_loss, regression_batch())


def digits_sized() -> Case:
    """An MLP of as many weights as one for handwritten digits has: about 1 MB with Adam's moments."""
    model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 256, 256, 1])
    return Case(model, regression_loss, regression_batch(128))


def convolutional() -> Case:
    """Two convolutions of images of 8 × 8 points, and a linear layer."""
    first, second, third = jax.random.split(jax.random.key(0), 3)
    layers = [
        Convolution.from_config("first", 8, (1, 4), first),
        Convolution.from_config("second", 8, (4, 8), second),
        MLP.from_config(init_base_rng=third, feature_sizes=[512, 1]),
    ]
    return Case(pz.nn.Sequential(layers), regression_loss, regression_batch(8, 64))


def dropout_mlp() -> Case:
    """An MLP whose dropout takes its random stream as a side input."""
    model = DropoutMLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1], drop_rate=0.5)
    return Case(model, random_regression_loss, regression_batch())


def random_stream() -> Case:
    """An MLP with dropout that holds its random stream: the stream's offset is model state."""
    body = DropoutMLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1], drop_rate=0.5)
    model = WithStream(body, pz.RandomStream.from_base_key(jax.random.key(5)))
    return Case(model, regression_loss, regression_batch())


def running_statistics() -> Case:
    """An MLP behind a layer that keeps running statistics in unlabelled state variables."""
    body = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1])
    return Case(pz.nn.Sequential([RunningNorm.from_config(4), body]), regression_loss, regression_batch())


def transformer(*, stacked: bool = False, tied: bool = False, dim: int = 16) -> Case:
    """A Llama-like decoder of two blocks, with its blocks in a `pz.nn.LayerStack` or side by side."""
    config = llamalike_common.LlamalikeTransformerConfig(
        num_kv_heads=1,
        query_head_multiplier=2,
        embedding_dim=dim,
        projection_dim=dim // 2,
        mlp_hidden_dim=2 * dim,
        num_decoder_blocks=BLOCKS,
        vocab_size=VOCABULARY,
        mlp_variant="swiglu",
        tie_embedder_and_logits=tied,
        use_layer_stack=stacked,
    )
    model = llamalike_common.build_llamalike_transformer(config, init_base_rng=jax.random.key(0))
    return Case(model, language_loss, language_batch())


def one_block() -> Case:
    """The transformer without its second block, for what compiles long."""
    case = transformer()
    second = pz.select(case.model).at_instances_of(TransformerBlock).pick_nth_selected(1)
    return case._replace(model=second.set(pz.nn.Identity()))


def dropout_transformer() -> Case:
    """A transformer that drops a fifth of what its blocks' feed-forward layers give, at random."""
    plain = transformer()
    feed_forward = pz.select(plain.model).at_instances_of(pz.nn.Residual)
    model = feed_forward.apply(lambda layer: pz.nn.Sequential([layer, pz.nn.StochasticDropout(0.2)]))

    def loss_fn(*, model: Any, state: Any, rng: jax.Array, tokens: jax.Array) -> Any:
        stream = pz.RandomStream.from_base_key(rng, offset_label="of the call")
        return language_loss(
            model=functools.partial(model, random_stream=stream), state=state, rng=rng, tokens=tokens
        )

    return Case(model, loss_fn, plain.batch)


def _with_adapters(model: Any) -> Any:
    return lora.loraify_linears_in_selection(pz.select(model), rank=2, init_base_rng=jax.random.key(2))


def not_trainable(parameter: pz.Parameter) -> pz.Parameter:
    """The same parameter, declared not trainable in its metadata."""
    metadata = {**parameter.metadata, "trainable": False}
    return pz.Parameter(value=parameter.value, label=parameter.label, metadata=metadata)


def lora_by_metadata() -> Case:
    """An MLP with low-rank adapters; the pretrained parameters say that they are not trainable."""
    case = mlp()
    frozen = pz.select(case.model).at_instances_of(pz.Parameter).apply(not_trainable)
    return case._replace(model=_with_adapters(frozen))


def lora_by_freezing() -> Case:
    """An MLP with low-rank adapters; the pretrained parameters are frozen into constants."""
    case = mlp()
    return case._replace(model=_with_adapters(pz.freeze_params(case.model)))


def lora_on_a_stack() -> Case:
    """Low-rank adapters on the linear layers of a stack of transformer blocks."""
    case = transformer(stacked=True)
    return case._replace(model=_with_adapters(pz.freeze_params(case.model)))


def shared_parameter() -> Case:
    """One `pz.Parameter` object in two layers."""
    factor = pz.Parameter(value=pz.nx.ones({"features": 4}) * 1.5, label="factor")
    head = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 1], name="head")
    model = pz.nn.Sequential([Scale(factor), pz.nn.Elementwise(jnp.tanh), Scale(factor), head])
    return Case(model, regression_loss, regression_batch())


def v1_mlp() -> Case:
    """An MLP of penzai's first, immutable API."""
    v1 = importlib.import_module("penzai.deprecated.v1.pz")
    simple_mlp = importlib.import_module("penzai.deprecated.v1.example_models.simple_mlp")
    model = v1.nn.initialize_parameters(simple_mlp.MLP.from_config([4, 8, 1]), jax.random.key(0))
    return Case(model, regression_loss, regression_batch())


ZOO: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "dropout_mlp": dropout_mlp,
    "random_stream": random_stream,
    "running_statistics": running_statistics,
    "transformer": transformer,
    "transformer_tied": lambda: transformer(tied=True),
    "transformer_stacked": lambda: transformer(stacked=True),
    "transformer_stacked_tied": lambda: transformer(stacked=True, tied=True),
    "lora_by_metadata": lora_by_metadata,
    "lora_by_freezing": lora_by_freezing,
    "lora_on_a_stack": lora_on_a_stack,
    "shared_parameter": shared_parameter,
    "v1_mlp": v1_mlp,
}
