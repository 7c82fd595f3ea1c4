from __future__ import annotations

import gc
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import toolshed
from tests import zoo
from tests.checkpoints.states import bits, small_state
from toolshed.checkpoints import Repository, Saving
from toolshed.errors import CheckpointError, RepositoryLockedError, SaveError, StateError


class Blocked:
    """A metric that is not known before it is let go; saving waits for it."""

    shape = ()

    def __init__(self) -> None:
        self.go = threading.Event()

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        assert self.go.wait(30)
        return jnp.float32(1.5).__array__(*arguments, **options)


# --- in the background ------------------------------------------------------------------------------


def test_a_save_returns_before_it_is_on_the_disk_and_says_when_it_is(tmp_path):
    blocked, told = Blocked(), []
    with Repository(tmp_path) as repository:
        assert repository.saving is None
        saving = repository.save(small_state(3), metrics={"m": blocked})
        saving.add_done_callback(told.append)
        assert (saving.done, saving.status, saving.manifest, saving.error) == (False, "saving", None, None)
        assert repository.saving is saving
        assert "saving" in repr(saving)
        assert repr(repository).startswith(f"Repository {tmp_path} · 0 checkpoints · saving")
        with pytest.raises(TimeoutError, match=r"is not in .* after 0.01 s; it goes on"):
            saving.wait(0.01)
        assert repository.steps() == []
        blocked.go.set()
        manifest = saving.wait()
    assert (saving.done, saving.status, saving.manifest) == (True, "saved", manifest)
    assert told == [saving]
    assert manifest.metrics == {"m": 1.5}
    assert repository.saving is None
    assert repository.steps() == [3]
    saving.add_done_callback(told.append)  # it is over: told at once
    assert told == [saving, saving]


def test_a_state_may_be_donated_as_soon_as_save_has_returned(tmp_path):
    case = zoo.random_stream()
    like = toolshed.TrainState.initial_state(case.model, optax.adam(0.1), jax.random.key(1))
    state = jax.tree.map(lambda leaf: jnp.copy(leaf) if hasattr(leaf, "dtype") else leaf, like)
    step = toolshed.build_train_step(case.loss_fn, donate=True)
    expected, savings = [], []
    with Repository(tmp_path) as repository:
        for _ in range(3):
            expected.append(bits(state))
            savings.append(repository.save(state))
            state, _ = step(state, case.batch)
        for n, (saving, values) in enumerate(zip(savings, expected, strict=True)):
            assert saving.wait().step == n  # the step that the state had when it was saved
            assert bits(repository.load(n, like=like)) == values
    assert expected[0] != expected[1]


def test_what_needs_a_checkpoint_waits_for_it_and_what_lists_them_does_not(tmp_path):
    for use in (
        lambda other: other.load(like=small_state()),
        lambda other: other.compare("latest", small_state()),
        lambda other: other.tag("latest", "mine"),
        lambda other: other.delete("latest"),
    ):
        blocked = Blocked()
        repository = Repository(tmp_path / "r")
        repository.save(small_state(1), metrics={"m": blocked})
        assert repository.latest is None
        assert repository.steps() == []
        threading.Timer(0.05, blocked.go.set).start()
        use(Repository(tmp_path / "r"))  # another object, of the same process
        assert repository.saving is None
        repository.close()
        shutil.rmtree(tmp_path / "r")


def test_the_next_save_waits_for_the_one_before(tmp_path):
    blocked = Blocked()
    with Repository(tmp_path) as repository:
        first = repository.save(small_state(1), metrics={"m": blocked})
        threading.Timer(0.1, blocked.go.set).start()
        second = repository.save(small_state(2))
        assert first.done
        second.wait()
        assert [one.step for one in repository.find()] == [1, 2]


def test_two_repositories_of_one_process_take_turns(tmp_path):
    one, other = Repository(tmp_path), Repository(str(tmp_path) + "/../" + tmp_path.name)
    savings = [repository.save(small_state(n)) for n, repository in enumerate([one, other, one, other])]
    assert [saving.wait().generation for saving in savings] == [1, 2, 3, 4]
    one.close()


def test_a_callback_that_fails_harms_nobody(tmp_path, caplog):
    told: list[Saving] = []
    blocked = Blocked()
    with Repository(tmp_path) as repository:
        saving = repository.save(small_state(), metrics={"m": blocked})
        saving.add_done_callback(lambda saving: 1 / 0)
        saving.add_done_callback(told.append)
        blocked.go.set()
        saving.wait()
        repository.close()
    deadline = time.monotonic() + 10
    while not told:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert "What was to be told of a checkpoint" in caplog.text


def test_a_callback_may_save_again(tmp_path):
    again: list[Saving] = []
    blocked = Blocked()
    with Repository(tmp_path) as repository:
        saving = repository.save(small_state(1), metrics={"m": blocked})
        saving.add_done_callback(lambda _: again.append(repository.save(small_state(2))))
        blocked.go.set()
        saving.wait()
        while not again:
            time.sleep(0.001)
        again[0].wait()
        assert repository.steps() == [1, 2]


SCRIPT = """
import sys
import jax
from tests.checkpoints.states import small_state
from toolshed.checkpoints import Repository
repository = Repository(sys.argv[1])
repository.save(small_state(5))  # loads orbax in its thread, while Python ends
"""


def test_python_waits_for_the_last_checkpoint_at_its_end(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Repository(tmp_path).steps() == [5]


# --- what goes wrong --------------------------------------------------------------------------------


def test_a_failure_in_the_background_is_logged_at_once_and_kept_and_the_next_save_works(tmp_path, caplog):
    class Broken(Blocked):
        def __array__(self, *arguments: Any, **options: Any) -> Any:
            raise OSError(28, "No space left on device")

    with Repository(tmp_path) as repository:
        saving = repository.save(small_state(1), metrics={"m": Broken()})
        with pytest.raises(SaveError, match=r"was not saved in .*: No space left on device"):
            saving.wait()
        assert saving.status == "failed"
        assert isinstance(saving.error, SaveError)
        assert saving.error.__cause__ is not None
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "No space left on device" in caplog.text
        assert list((tmp_path / "staging").iterdir()) == []
        assert repository.save(small_state(2)).wait().step == 2
        assert repository.steps() == [2]


def test_a_failure_that_is_raised_is_not_logged_too(tmp_path, caplog):
    (tmp_path / "r").mkdir()
    repository = Repository(tmp_path / "r")
    (tmp_path / "r").rmdir()
    (tmp_path / "r").write_text("a file by now")
    with pytest.raises(SaveError, match="was not saved in"):
        repository.save(small_state(), wait=True)
    assert caplog.records == []


def test_a_checkpoint_that_there_is_no_room_for_is_not_begun(tmp_path, monkeypatch, caplog):
    from toolshed.checkpoints import saving as savings

    usage = savings.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(savings.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with Repository(tmp_path) as repository, pytest.raises(SaveError) as caught:
        repository.save(small_state(), wait=True)
    assert str(caught.value) == (
        f"No space for a checkpoint in {tmp_path}: it takes 269.4 kB, and 100.0 kB are free."
    )


def test_old_checkpoints_that_cannot_be_removed_fail_no_save(tmp_path, monkeypatch, caplog):
    repository = Repository(tmp_path, keep_last=1)
    repository.save(small_state(1), wait=True)
    monkeypatch.setattr(repository._layout, "discard", lambda entry: (_ for _ in ()).throw(OSError(13, "no")))
    with caplog.at_level(logging.ERROR):
        assert repository.save(small_state(2), wait=True).status == "saved"
    assert "Step 2 is saved, but old checkpoints were not removed: [Errno 13] no" in caplog.text
    repository.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state": {"params": 1}}, "Expected a TrainState to save, got dict."),
        ({"step": -1}, "A step is a whole number from 0"),
        ({"tags": ["latest"]}, "The tag 'latest' means"),
        ({"metadata": {"a": object()}}, "metadata/a is object"),
        ({"metrics": {"a": "b"}}, "The metric 'a' is str"),
        ({"data_state": {"at": {1, 2}}}, "data_state/at is set"),
    ],
)
def test_a_wrong_argument_is_told_by_the_call_and_nothing_is_written(tmp_path, arguments, message):
    repository = Repository(tmp_path / "r")
    with pytest.raises(CheckpointError, match=message):
        repository.save(**({"state": small_state()} | arguments))
    assert not (tmp_path / "r").exists()


def test_a_donated_state_is_told(tmp_path):
    state = small_state()
    state.params["mlp/w"].delete()
    with pytest.raises(StateError, match="is deleted"):
        Repository(tmp_path).save(state)


def test_two_arrays_of_one_path_are_told(tmp_path):
    clash = {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}
    with pytest.raises(StateError, match="Two arrays have the path 'loss_fn_state/a/b', so one"):
        Repository(tmp_path).save(small_state(loss_fn_state=clash))


# --- one writer -------------------------------------------------------------------------------------

OTHER = """
import sys
from tests.checkpoints.states import small_state
from toolshed.checkpoints import Repository
from toolshed.errors import RepositoryLockedError
repository = Repository(sys.argv[1])
for line in sys.stdin:
    try:
        done = eval(line)
        print("done", flush=True)
    except RepositoryLockedError as error:
        print(error, flush=True)
"""


def test_another_process_may_read_while_one_writes_and_write_when_it_has_closed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def there(code: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(code + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    repository = Repository(tmp_path)
    repository.save(small_state(1), wait=True)
    assert there("repository.load(1, like=small_state())") == "done"
    assert there("repository.verify()") == "done"
    for change in ("save(small_state(2))", "tag(1, 'mine')", "untag(1, 'mine')", "delete(1)"):
        assert "is being written by process" in there(f"repository.{change}")
    repository.close()
    assert there("repository.save(small_state(2), wait=True)") == "done"
    with pytest.raises(RepositoryLockedError, match=f"process {process.pid}"):
        repository.save(small_state(3))
    assert repository.steps() == [1, 2]
    assert there("repository.close()") == "done"
    repository.save(small_state(3), wait=True)
    del repository
    gc.collect()  # as good as closing it
    assert there("repository.save(small_state(4), wait=True)") == "done"
    process.communicate()


def test_the_lock_tells_who_writes(tmp_path):
    with Repository(tmp_path) as repository:
        repository.save(small_state(), wait=True)
        assert set(json.loads((tmp_path / "lock").read_text())) == {"host", "pid", "since"}
