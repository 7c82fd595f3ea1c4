from __future__ import annotations

import math
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.checkpoints.states import bits, entry, large_state, small_state, two_checkpoints
from toolshed import TrainState, metrics
from toolshed.checkpoints import Best, Damage, Repository
from toolshed.data import from_arrays
from toolshed.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointWarning,
    OptimizerWarning,
    PartialRestoreWarning,
)
from toolshed.state import describe_optimizer

ADAM = optax.adam(0.1)


def save(repository: Repository, step: int, **options: Any) -> None:
    repository.save(small_state(step), wait=True, **options)


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


# --- which one --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Steps 30, 10 (a rewind), 20, 20 again, 40."""
    repository = Repository(tmp_path_factory.mktemp("several"), keep_best=Best("loss", "min", 9))
    save(repository, 30, metrics={"loss": 1.0}, tags=["old"], metadata={"lr": 0.1, "deep": {"a": [1]}})
    save(repository, 10, metrics={"loss": 0.5, "accuracy": 0.75}, tags=["mine"])
    save(repository, 20, metrics={"loss": 2.0}, tags=["mine", "first"], metadata={"lr": 0.1, "x": 1})
    save(repository, 20, metrics={"loss": 0.5})
    save(repository, 40, metrics={"loss": math.nan})
    repository.close()
    return repository


def test_steps_come_in_rising_order_each_once(several):
    assert several.steps() == [10, 20, 30, 40]


def test_latest_is_what_was_written_last(several, tmp_path):
    assert several.latest.step == 40
    assert Repository(tmp_path).latest is None
    with Repository(tmp_path) as repository:
        save(repository, 500)
        save(repository, 200)  # after a rewind
        assert repository.latest.step == 200
        assert int(repository.load(like=small_state()).step) == 200


def test_a_step_saved_again_is_the_newer_one_and_a_tagged_one_is_kept(several):
    assert several.manifest(20).metrics["loss"] == 0.5
    assert several.manifest("first").metrics["loss"] == 2.0
    assert several.manifest("first").step == 20
    assert int(several.load(several.manifest("first"), like=small_state()).step) == 20


def test_a_tag_means_the_newest_that_has_it(several):
    assert several.manifest("mine").metrics["loss"] == 2.0
    assert several.manifest("old").step == 30


def test_best_is_by_metric_and_of_equals_the_newer(several):
    assert several.best("loss").step == 20
    assert several.best("loss", "max").metrics["loss"] == 2.0
    assert several.best("accuracy", "max").step == 10
    assert several.manifest("best").step == 20  # keep_best says by which


def test_find_is_by_all_tags_and_entries_of_metadata(several):
    assert [one.step for one in several.find()] == [30, 10, 20, 20, 40]
    assert [one.step for one in several.find(tags="mine")] == [10, 20]
    assert [one.step for one in several.find(tags=["mine", "first"])] == [20]
    assert [one.step for one in several.find(metadata={"lr": 0.1})] == [30, 20]
    assert [one.step for one in several.find(tags="old", metadata={"deep": {"a": [1]}})] == [30]
    assert several.find(metadata={"lr": None}) == []
    assert several.find(tags="nobody's") == []


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (25, "There is no step 25 in {path}. There are 4; the nearest are 10, 20, 30, 40."),
        ("mne", "There is no checkpoint with the tag 'mne' in {path}. There is 'mine'."),
        ("x" * 500, "There is no checkpoint with the tag '" + "x" * 100 + "' in {path}."),
        ("../../evil", "There is no checkpoint with the tag '../../evil' in {path}."),
    ],
)
def test_what_is_not_there_is_told_with_what_is(several, which, message):
    with pytest.raises(CheckpointNotFoundError, match=re.escape(message.format(path=several.path))):
        several.load(which, like=small_state())
    with pytest.raises(LookupError):
        several.manifest(which)


def test_an_empty_repository_says_so(tmp_path):
    repository = Repository(tmp_path / "nothing")
    for which in ("latest", 3):
        with pytest.raises(CheckpointNotFoundError, match=r"no (checkpoint in|step 3 in .* at all)"):
            repository.load(which, like=small_state())
    with pytest.raises(CheckpointNotFoundError, match=r"Which is best\? Ask best"):
        repository.manifest("best")
    assert repository.steps() == []
    assert repository.find() == []
    assert repository.verify() == ()
    assert repr(repository) == f"Repository {tmp_path / 'nothing'} · 0 checkpoints"
    assert not (tmp_path / "nothing").exists()


def test_a_metric_that_none_has_is_told(several):
    message = (
        "no checkpoint with a finite 'acuracy' in .*The metrics there are accuracy, loss. Give them to save"
    )
    with pytest.raises(CheckpointNotFoundError, match=message):
        several.best("acuracy")
    with pytest.raises(CheckpointError, match="mode is 'lowest'; expected 'min' or 'max'"):
        several.best("loss", "lowest")


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


# --- what is damaged --------------------------------------------------------------------------------


def test_latest_steps_over_what_is_damaged_and_says_so(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    (entry(repository, 2).folder / "manifest.json").unlink()
    with pytest.warns(
        CheckpointWarning, match=r"Loaded step 1, as what is newer .* manifest.json is missing"
    ) as log:
        restored = repository.load(like=large_state())
    assert log[0].filename == __file__
    assert bits(restored) == bits(large_state(1))
    assert repository.steps() == [1]
    assert repository.latest.step == 1
    with pytest.raises(CheckpointDamagedError, match=r"000002 is damaged: manifest.json is missing"):
        repository.load(2, like=large_state())
    with pytest.warns(
        CheckpointWarning, match="1 of the checkpoints in .* cannot be read and are left out"
    ) as log:
        assert [one.step for one in repository.find()] == [1]
    assert log[0].filename == __file__


def test_where_none_is_whole_there_is_an_error_and_never_a_fresh_start(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    for step in (1, 2):
        (entry(repository, step).folder / "manifest.json").write_text("{}")
    message = r"None of the 2 checkpoints in .* can be read. The newest: 000000000002-000000002 is damaged"
    for ask in (
        lambda: repository.load(like=large_state()),
        lambda: repository.latest,
        lambda: repository.steps(),
        lambda: repository.find(),
        lambda: repository.manifest("best"),
    ):
        with pytest.raises(CheckpointDamagedError, match=message):
            ask()
    assert "000000000002-000000002 is damaged" in repr(repository)  # a table is shown in any case
    repository.delete(1)
    with pytest.raises(CheckpointDamagedError, match=r"The checkpoint in .* cannot be read"):
        _ = repository.latest
    repository.close()


def test_verify_names_what_is_wrong_and_the_table_shows_it(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    assert "whole" in repr(repository)
    assert repository.verify() == ()
    assert repr(repository).count("verified") == 2
    path = next(path for path in entry(repository, 2).folder.rglob("d/*") if path.stat().st_size > 60_000)
    raw = bytearray(path.read_bytes())
    raw[5_000] ^= 1
    path.write_bytes(raw)
    (repository.path / "steps" / "junk").mkdir()
    file = path.relative_to(entry(repository, 2).folder)
    problem = f"000000000002-000000002 is damaged: {file} is not as it was written."
    assert repository.verify() == (
        Damage("000000000002-000000002", 2, problem),
        Damage("junk", None, "'junk' is no checkpoint."),
    )
    assert repository.verify(2) == repository.verify()[:1]
    assert repository.verify(1) == ()
    assert problem in repr(repository)
    (entry(repository, 2).folder / "manifest.json").unlink()
    assert "manifest.json is missing" in repository.verify(2)[0].problem


def test_one_that_is_deleted_while_it_is_looked_for_is_just_not_there(tmp_path, monkeypatch):
    repository = two_checkpoints(tmp_path / "r")
    newest = entry(repository, 2)
    listed = repository._layout.entries()
    shutil.rmtree(newest.folder)
    monkeypatch.setattr(repository._layout, "entries", lambda: listed)
    assert repository.steps() == [1]
    calls = iter([listed, listed[:1]])
    monkeypatch.setattr(repository._layout, "entries", lambda: next(calls))
    assert int(repository.load(like=large_state()).step) == 1  # and no warning


# --- what does not fit ------------------------------------------------------------------------------


def test_a_mismatch_names_every_leaf_on_both_sides_and_what_helps(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    with pytest.raises(CheckpointMismatchError) as caught:
        repository.load(2, like=large_state().replace(params={"w": jnp.zeros(7), "v": jnp.zeros(2)}))
    assert str(caught.value).splitlines() == [
        f"Step 2 in {repository.path} does not fit this state: 2 of its leaves differ.",
        "other in dtype or shape (1):",
        "  params/w: saved float32[20000], expected float32[7]",
        "only expected (1):",
        "  params/v: float32[2]",
        "The model was probably built with other sizes or layers. Build it as it was, or pass partial=True to"
        " restore what fits and keep the rest of `like`.",
    ]


def with_params(**params: Any) -> TrainState:
    return small_state(9, params=params)


def test_another_dtype_is_refused_unless_it_is_cast(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(with_params(a=jnp.asarray([1.5, 1 + 2**-12])), wait=True)
    like = with_params(a=jnp.zeros(2, jnp.bfloat16))
    with pytest.raises(CheckpointMismatchError, match=r"saved float32.2., expected bfloat16.2.\n.*cast=True"):
        repository.load(like=like)
    loaded = repository.load(like=like, cast=True)
    assert loaded.params["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(loaded.params["a"], np.float32), [1.5, 1.0])
    with pytest.raises(CheckpointMismatchError, match=r"saved float32\[2\], expected float32\[3\]"):
        repository.load(like=with_params(a=jnp.zeros(3)), cast=True)
    whole = with_params(a=jnp.zeros(2)).replace(params={"a": jnp.zeros(2, jnp.int32)})
    with pytest.raises(CheckpointMismatchError, match="expected int32"):  # that would be no other precision
        repository.load(like=whole, cast=True)


def test_double_precision_is_not_cut_in_silence(tmp_path):
    with Repository(tmp_path) as repository, jax.enable_x64(True):
        state = small_state(9, params={"a": jnp.asarray([1 / 3], jnp.float64)}, loss_fn_state=None)
        repository.save(state, wait=True)
        assert bits(repository.load(like=state)) == bits(state)
    assert repository.manifest().environment["x64"] is True
    like = small_state(9, params={"a": jnp.asarray([0.0])}, loss_fn_state=None)
    with pytest.raises(CheckpointMismatchError, match="saved with jax_enable_x64, which is off here"):
        repository.load(like=like)
    with pytest.warns(UserWarning, match="saved with jax_enable_x64 on, now the other way"):
        loaded = repository.load(like=like, cast=True)
    assert float(loaded.params["a"][0]) == np.float32(1 / 3)


def test_what_fits_is_restored_and_the_rest_is_told(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(with_params(a=jnp.ones(2), b=jnp.ones(3), c=jnp.ones(4)), wait=True)
    like = small_state(1, params={"a": jnp.zeros(2), "b": jnp.full(5, 7.0), "d": jnp.full(6, 8.0)})
    found = repository.restore(like=like, partial=True)
    assert found.kept == ("params/b", "params/d")
    assert found.dropped == ("params/b", "params/c")
    assert "params/a" in found.restored
    assert found.differences == ()
    assert found.manifest.step == 9
    assert int(found.state.step) == 9
    values = {path: float(value[0]) for path, value in found.state.params.items()}
    assert values == {"a": 1.0, "b": 7.0, "d": 8.0}
    assert repr(found).startswith(
        "Restored(step 9: 6 leaves restored, 2 kept (params/b, params/d), 2 dropped"
    )
    message = (
        r"Of step 9 6 leaves were restored, 2 are as they were in `like` \(params/b, params/d\), 2 saved ones"
        r" were dropped \(params/b, params/c\)"
    )
    with pytest.warns(PartialRestoreWarning, match=message) as log:
        assert bits(repository.load(like=like, partial=True)) == bits(found.state)
    assert log[0].filename == __file__


def test_where_no_parameter_fits_partial_is_an_error_too(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(small_state(1, model_without_params=()), wait=True)
    like = small_state(2, params={"z": jnp.ones(1)}, model_without_params=())
    with pytest.raises(
        CheckpointMismatchError, match="No parameter fits, so there is nothing to restore"
    ) as caught:
        repository.load(like=like, partial=True)
    assert "pass partial" not in str(caught.value)


def test_a_model_with_other_names_is_loaded_by_a_rename(tmp_path):
    saved = small_state(3, params={"encoder/0/w": jnp.ones(2), "head/w": jnp.ones(3)}, optimizer_def=ADAM)
    params = {"backbone/0/w": jnp.zeros(2), "classifier/w": jnp.full(5, 7.0)}
    like = small_state(params=params, optimizer_def=ADAM)
    with Repository(tmp_path) as repository:
        repository.save(saved, wait=True)
    with pytest.raises(CheckpointMismatchError, match="encoder"):
        repository.load(like=like)
    found = repository.restore(like=like, rename={"encoder": "backbone", "head": None}, partial=True)
    assert "params/backbone/0/w" in found.restored
    assert "opt_state/0/mu/backbone/0/w" in found.restored
    assert [path for path in found.kept if path.startswith("params/")] == ["params/classifier/w"]
    assert [path for path in found.dropped if path.startswith("params/")] == ["params/head/w"]
    np.testing.assert_array_equal(found.state.params["backbone/0/w"], [1, 1])
    np.testing.assert_array_equal(found.state.params["classifier/w"], [7] * 5)
    whole = small_state(params={"a/0/w": jnp.zeros(2), "b/w": jnp.zeros(3)}, optimizer_def=ADAM)
    loaded = repository.load(like=whole, rename={"encoder": "a", "head": "b"})
    np.testing.assert_array_equal(loaded.params["b/w"], [1, 1, 1])


def test_another_optimiser_is_told_or_left_out(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(small_state(3, optimizer_def=ADAM), wait=True)
    with pytest.raises(CheckpointMismatchError, match="It was saved with the optimizer scale_by_adam"):
        repository.load(like=small_state(optimizer_def=optax.sgd(0.1, momentum=0.9)))
    with pytest.warns(OptimizerWarning, match="training goes on with .*0.25"):
        loaded = repository.load(like=small_state(optimizer_def=optax.adam(0.25)))
    assert int(loaded.step) == 3
    with pytest.warns(OptimizerWarning), pytest.warns(PartialRestoreWarning, match="opt_state/0/mu/mlp/w"):
        loaded = repository.load(like=small_state(optimizer_def=optax.sgd(0.1)), partial=True)
    assert bits(loaded)["params/mlp/w"] == bits(small_state(3))["params/mlp/w"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": {"a": 1}}, "Expected `like` to be a TrainState, got dict. Make a fresh one with the model"),
        ({"shardings": "everywhere"}, "Expected shardings as one jax.sharding.Sharding, or as a TrainState"),
        ({"rename": {"nobody": "x"}}, "rename has 'nobody', which is in no saved path."),
        ({"step": 1.5}, "A step is a whole number"),
        ({"step": None}, "A step is a whole number"),
    ],
)
def test_a_wrong_argument_is_told(several, options, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        several.load(**({"like": small_state()} | options))


def test_a_state_of_shapes_alone_is_told(several):
    with pytest.raises(CheckpointError, match="`like` has no array at step, only a shape; expected"):
        several.load(like=jax.eval_shape(small_state))


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
