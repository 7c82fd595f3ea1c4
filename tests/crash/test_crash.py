"""A saving process that is killed loses nothing that it said was saved.

The short form; `python -m tests.crash --kills 500` is the long one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crash.harness import Killer, Zygote
from tests.crash.worker import MODES, Order


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_acknowledged_is_there_after_a_kill(zygote, tmp_path, mode, asynchronous):
    killer = Killer(tmp_path, mode, asynchronous=asynchronous, source=random.Random(mode))
    killer.kill_once(zygote)
    assert killer.kills == 1
    assert killer.saved


def test_the_judge_sees_what_is_lost_and_what_is_half_deleted(tmp_path):
    killer = Killer(tmp_path, "keep all", asynchronous=False, source=random.Random(0))
    order = Order(str(tmp_path / "repository"), "keep all", False, 0, str(tmp_path / "acknowledged"), None)
    killer.judge(order)
    killer.judge(order)
    killer.saved.append(1000)
    with pytest.raises(AssertionError, match="state 1000 was acknowledged, the newest is 1"):
        killer.judge(order)
    killer.saved.pop()
    half = next((tmp_path / "repository" / "steps").iterdir())
    (half / "manifest.json").unlink()
    with pytest.raises(AssertionError, match=r"manifest\.json"):
        killer.judge(order)
