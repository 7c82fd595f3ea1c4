"""How long it takes to find the first value that is not finite in a step of a transformer.

    python tests/benchmarks/autopsy.py [--blocks 12] [--width 256]

A Llama-like decoder, its step compiled beforehand, as in a training that goes on. One fault overflows in the
middle of the way forward; the other is on the way back alone, so that all of the step is replayed but the
optimiser. Each is looked for once in a fresh cache, and once more.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from penzai.models.transformer.variants import llamalike_common

import toolshed
from tests.zoo import language_loss
from toolshed.insight import first_nonfinite


def root_at_zero_loss(*, model: Any, state: Any, rng: jax.Array, tokens: jax.Array) -> Any:
    """The loss, and a root of zero that has no slope."""
    loss, state, aux = language_loss(model=model, state=state, rng=rng, tokens=tokens)
    return loss + jnp.sqrt(loss * 0), state, aux


def decoder(blocks: int, width: int) -> Any:
    """The model."""
    config = llamalike_common.LlamalikeTransformerConfig(
        num_kv_heads=4,
        query_head_multiplier=1,
        embedding_dim=width,
        projection_dim=width // 4,
        mlp_hidden_dim=4 * width,
        num_decoder_blocks=blocks,
        vocab_size=256,
        mlp_variant="geglu_approx",
        tie_embedder_and_logits=False,
    )
    return llamalike_common.build_llamalike_transformer(config, init_base_rng=jax.random.key(0), name="model")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Times the search for the first value that is not finite.")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    model = decoder(options.blocks, options.width)
    batch = {"tokens": jnp.arange(512).reshape(8, 64) % 250}
    state = toolshed.TrainState.initial_state(model, optax.adamw(1e-3), jax.random.key(1))
    path = f"model/block_{options.blocks // 2}/pre_attention_norm/scale.weights"
    overflowing = state.replace(params={**state.params, path: state.params[path] * 1e30})
    faults = {
        "on the way forward": (language_loss, overflowing),
        "on the way back": (root_at_zero_loss, state),
    }
    for name, (loss_fn, state) in faults.items():
        step = toolshed.build_train_step(loss_fn)
        step(state, batch)
        for when in ("first", "again"):
            start, cpu = time.perf_counter(), time.process_time()
            found = first_nonfinite(step, state, batch)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            assert found.fault is not None
            print(
                f"{name}, {when}: {wall:5.1f} s ({cpu:5.1f} s of CPU), {found.operations:,} operations:"
                f" {found.fault.headline} in {found.fault.scope or 'the loss'}"
            )


if __name__ == "__main__":
    main()
