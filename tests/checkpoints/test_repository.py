"""A state is saved and comes back, and what is there is tagged, deleted, retired, compared and shown."""

from __future__ import annotations

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.checkpoints.states import bits, entry, large_state, save, small_state, two_checkpoints
from toolshed import TrainState, metrics
from toolshed.checkpoints import Repository
from toolshed.data import from_arrays
from toolshed.errors import CheckpointError, CheckpointNotFoundError
from toolshed.state import describe_optimizer

ADAM = optax.adam(0.1)


# --- there and back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random_stream", "lora_by_metadata"])
def test_a_model_comes_back_bit_for_bit_and_goes_on_as_if_nothing_had_been(tmp_path, name):
    case, again = zoo.ZOO[name](), zoo.ZOO[name]()
    collection = metrics.collection(mean=metrics.Mean("preds"))
    state = TrainState.initial_state(case.model, ADAM, jax.random.key(1), metrics=collection)
    step = toolshed.build_train_step(case.loss_fn, fields=("loss_total",))
    state, _ = step(state, case.batch)
    # What is frozen is other than in a fresh model, as pretrained weights are.
    change = lambda x: x + 1 if getattr(x, "dtype", None) == jnp.float32 else x  # noqa: E731
    state = state.replace(model_without_params=jax.tree.map(change, state.model_without_params))
    like = TrainState.initial_state(again.model, ADAM, jax.random.key(9), metrics=collection)
    with Repository(tmp_path) as repository:
        state.save(repository, wait=True)
        restored = TrainState.load(repository, like=like)
    assert bits(restored) == bits(state)
    assert bits(restored) != bits(like)
    assert restored.optimizer_def is like.optimizer_def
    on, _ = step(state, case.batch)
    once_more, _ = step(restored, case.batch)
    assert bits(once_more) == bits(on)
    assert step.traces == 1


def test_what_is_in_like_does_not_matter(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    one, two = (repository.load(1, like=large_state(n)) for n in (1, 9))
    assert bits(one) == bits(two) == bits(large_state(1))


def test_what_was_loaded_may_be_donated_and_loaded_again(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    first = repository.load(1, like=large_state())
    other = repository.load(1, like=large_state())
    jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(first.params["w"])
    assert first.params["w"].is_deleted()
    assert bits(other) == bits(large_state(1))
    assert bits(repository.load(1, like=large_state())) == bits(large_state(1))


def test_the_manifest_says_what_was_saved(tmp_path):
    stream = from_arrays({"x": np.arange(10)}, batch_size=2, seed=3)
    next(iter(stream))
    with Repository(tmp_path) as repository:
        saving = repository.save(
            small_state(5),
            tags=["best", "<b>"],
            metadata={"lr": 1e-3},
            metrics={"eval/loss": jnp.float32(0.5), "bad": math.nan},
            data_state=stream.state(),
        )
        found = saving.wait()
    manifest = Repository(tmp_path).manifest(5)
    assert repr(manifest) == repr(found)
    assert (manifest.step, manifest.generation, manifest.tags) == (5, 1, ("best", "<b>"))
    assert manifest.metadata == {"lr": 1e-3}
    assert manifest.metrics["eval/loss"] == 0.5
    assert manifest.optimizer == describe_optimizer(small_state().optimizer_def)
    again = from_arrays({"x": np.arange(10)}, batch_size=2, seed=3)
    again.restore(manifest.data_state)
    assert again.position == 1
    assert set(manifest.environment) == {"versions", "x64", "devices", "mesh"}
    assert manifest.environment["versions"]["jax"] == jax.__version__
    leaves = {leaf.path: leaf for leaf in manifest.structure}
    assert {path: str(leaf.kind) for path, leaf in leaves.items()} == {
        "step": "int32[]",
        "root_rng": "key<threefry2x32>[]",
        "params/mlp/w": "float32[2,3]",
        "params/mlp/b": "bfloat16[2]",
        "frozen/mask": "bool[2]",
        "model_state/count": "int32[]",
        "loss_fn_state/key": "key<threefry2x32>[]",
    }
    assert leaves["params/mlp/w"].sharding == "1 device"
    assert manifest.nbytes == 4 + 8 + 24 + 4 + 2 + 4 + 8


# --- changing what is there -------------------------------------------------------------------------


def test_tags_come_and_go_and_nothing_else_changes(tmp_path):
    with two_checkpoints(tmp_path / "r") as repository:
        before = repository.manifest(1)
        assert repository.tag(1, "second", "first").tags == ("first", "second")
        assert repository.tag("second", "best").step == 1
        assert repository.manifest("best").step == 1
        assert repository.untag("best", "best", "nobody's").tags == ("first", "second")
        after = repository.untag(1, "second")
        assert after == before == repository.manifest(1)
        assert repository.verify() == ()
        assert bits(repository.load("first", like=large_state())) == bits(large_state(1))
        with pytest.raises(CheckpointError, match="The tag 'latest' means"):
            repository.tag(1, "latest")
        with pytest.raises(CheckpointNotFoundError):
            repository.tag(3, "x")


def test_what_is_deleted_is_gone(tmp_path):
    with two_checkpoints(tmp_path / "r") as repository:
        repository.delete(1)
        assert repository.steps() == [2]
        with pytest.raises(CheckpointNotFoundError, match="no step 1"):
            repository.delete(1)
        repository.delete("latest")
        assert repository.latest is None
        assert repository.path.is_dir()


def test_a_damaged_checkpoint_can_be_deleted(tmp_path):
    with two_checkpoints(tmp_path / "r") as repository:
        (entry(repository, 1).folder / "manifest.json").unlink()
        repository.delete(1)
        assert repository.verify() == ()
        assert repository.steps() == [2]


def test_retention_works_on_the_disk(tmp_path):
    with Repository(tmp_path, keep_last=2, keep_best=("loss", "min")) as repository:
        for step, loss in enumerate([3.0, 1.0, math.nan, 2.0, 5.0]):
            save(repository, step, metrics={"loss": loss}, tags=["kept"] if step == 0 else [])
        assert repository.steps() == [0, 1, 3, 4]
        assert len(list((tmp_path / "steps").iterdir())) == 4
        repository.untag(0, "kept")
        save(repository, 5, metrics={"loss": 4.0})
        assert repository.steps() == [1, 4, 5]


def test_damaged_ones_count_for_nothing_and_are_left_alone_by_retention(tmp_path):
    with Repository(tmp_path, keep_last=1) as repository:
        save(repository, 1)
        (entry(repository, 1).folder / "structure.json").unlink()
        save(repository, 2)
        assert repository.steps() == [2]
        assert [damage.step for damage in repository.verify()] == [1]


# --- side by side -----------------------------------------------------------------------------------


def test_two_checkpoints_or_a_checkpoint_and_a_state_are_compared(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    found = repository.compare(1, "latest")
    assert found.fits
    assert set(found.changed) == {
        "step", "root_rng", "params/w", "model_state/count", "loss_fn_state/keys"
    }  # fmt: skip
    assert set(found.same) == {"frozen/mask", "loss_fn_state/codes"}
    assert repr(found).startswith("Comparison of step 1 and step 2: 2 leaves are the same")
    assert repository.compare(2, large_state(2)).changed == ()
    assert repository.compare(large_state(3), 2).names == ("the state", "step 2")
    assert "params/w" in repository.compare(2, large_state(3)).changed
    assert repository.compare(2, small_state()).only_second


def test_a_notebook_shows_a_table(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    html = repository._repr_html_()
    assert html.startswith(f"<div><b>Repository {repository.path} · 2 checkpoints</b></div><table")
    assert "first" in html
    shutil.rmtree(repository.path / "steps")
    (repository.path / "steps").write_text("x")
    assert "steps is a file" in repr(repository)
    assert "steps is a file" in repository._repr_html_()
