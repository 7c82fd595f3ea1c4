"""The kernel's side of a tree to walk through."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import toolshed
from toolshed.live import display
from toolshed.live.closeup import COLUMNS, ROWS, closeup
from toolshed.live.explorer import FIRST, MOST, Explorer


def asked(explorer: Explorer, **message: Any) -> tuple[dict[str, Any], list[bytes]]:
    """The answer to a front end's question."""
    answers: list[Any] = []
    explorer.send = lambda content, buffers=None: answers.append((content, buffers or []))
    explorer._hear(explorer, {"number": "1", **message}, [])
    (answer,) = answers
    assert answer[0]["number"] == "1"
    return answer


def large() -> dict[str, Any]:
    tree = {f"block_{i}": {"w": np.ones(2, np.float32), "b": np.ones(1, np.float32)} for i in range(400)}
    tree["block_390"]["w"][1] = np.nan
    return tree


def test_the_first_picture_is_small_and_open_on_the_way_to_a_nan():
    (root,) = Explorer(
        {"a": {"x": jnp.ones(2), "y": jnp.ones(2)}, "b": {"x": jnp.array([jnp.nan]), "y": jnp.ones(2)}}
    ).rows
    assert [row["name"] for row in root["inside"]] == ["a", "b"]
    assert "inside" in root["inside"][1]
    (root,) = Explorer(large()).rows
    assert len(root["inside"]) == MOST
    assert root["left"] == 200
    assert "block_390" in [row["name"] for row in root["inside"]]
    assert sum("inside" in row for row in root["inside"]) <= FIRST


def test_deeper_levels_come_on_demand():
    explorer = Explorer({"a": {"x": jnp.ones(2), "y": jnp.zeros(2)}})
    inside = explorer.rows[0]["inside"]
    answer, _ = asked(explorer, kind="open", id=inside[0]["id"])
    assert [row["path"] for row in answer["rows"]] == ["a/x", "a/y"]
    assert answer["left"] == 0


def test_arrays_are_found_by_a_part_of_their_path_by_a_pattern_and_the_worst_first():
    explorer = Explorer(large())
    answer, _ = asked(explorer, kind="find", text="BLOCK_39", worst=False)
    assert len(answer["rows"]) == 22  # block_39 and block_390 to block_399, of two arrays each
    answer, _ = asked(explorer, kind="find", text="**/b", worst=False)
    assert (len(answer["rows"]), answer["left"]) == (MOST, 200)
    answer, _ = asked(explorer, kind="find", text="", worst=True)
    assert answer["rows"][0]["path"] == "block_390/w"


def test_a_look_into_an_array_gives_its_numbers_histogram_and_picture():
    values = np.array([[1.0, -2.0, 0.0], [4.0, 5.0, 6.0]], np.float32)
    explorer = Explorer({"w": jnp.asarray(values), "v": jnp.ones(2)})
    answer, (picture,) = asked(explorer, kind="look", id=explorer.rows[0]["inside"][0]["id"])
    assert dict(answer["numbers"])["max"] == "6"
    assert dict(answer["numbers"])["mean"] == "2.3333"  # 14 / 6
    assert (sum(answer["histogram"]), answer["shape"]) == (6, [2, 3, 2, 3])
    assert np.array_equal(np.frombuffer(picture, np.float32).reshape(2, 3), values)


def test_an_array_that_is_gone_by_now_says_so_and_a_wrong_question_too():
    array = jnp.ones(2) + 1
    explorer = Explorer({"w": array, "v": jnp.ones(2)})
    array.delete()
    answer, pictures = asked(explorer, kind="look", id=explorer.rows[0]["inside"][0]["id"])
    assert "given to a compiled step since" in answer["words"]
    assert pictures == []
    answer, _ = asked(explorer, kind="open", id=10_000)
    assert answer["problem"].startswith("IndexError")


def test_a_picture_of_a_large_array_keeps_its_largest_values_and_its_nan():
    values = np.zeros((3 * ROWS, 5 * COLUMNS), np.float32)
    values[4, 11], values[5, 10], values[200, 900] = 1.0, -3.0, np.nan
    picture, whole = closeup(jnp.asarray(values))
    assert (picture.shape, whole) == ((ROWS, COLUMNS), values.shape)
    assert picture[1, 2] == -3.0
    assert np.isnan(picture[200 // 3, 900 // 5])
    assert np.count_nonzero(picture) == 2


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4), (1000, 3), (97, 193)])
def test_pictures_of_every_shape_are_bounded(shape: tuple[int, ...]):
    picture, (rows, columns) = closeup(jnp.ones(shape))
    assert rows * columns == int(np.prod(shape))
    assert picture.shape[0] <= ROWS
    assert picture.shape[1] <= COLUMNS
    assert (picture == 1).all()


def test_pictures_of_other_types_and_of_explicit_meshes():
    mesh = jax.make_mesh((1,), ("data",))
    sharded = jax.device_put(jnp.arange(4.0), NamedSharding(mesh, PartitionSpec("data")))
    assert closeup(sharded)[0].tolist() == [[0, 1, 2, 3]]
    assert closeup(jnp.array([3 + 4j]))[0].tolist() == [[5]]
    assert closeup(jnp.array([True, False]))[0].tolist() == [[1, 0]]
    assert closeup(np.array([1, 2]))[0].tolist() == [[1, 2]]


def test_where_nobody_can_click_it_is_a_picture(monkeypatch: pytest.MonkeyPatch):
    tree = {"w": jnp.ones(2)}
    monkeypatch.setattr(display.place, "is_watched", lambda: False)
    assert isinstance(toolshed.explore(tree), toolshed.views.View)
    monkeypatch.setattr(display.place, "is_watched", lambda: True)
    assert repr(toolshed.explore(tree)) == "Explorer(dict, 1 arrays)"
