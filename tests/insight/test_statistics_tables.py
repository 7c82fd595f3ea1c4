"""Statistics of many leaves: their totals, found by path, and as a table."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.insight.by_numpy import check
from toolshed.errors import ContextKeyError
from toolshed.insight import combine, leaf_statistics


def planted_tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "a": {"w": rng.normal(3, 2, (4, 5)).astype(np.float32), "b": np.array([0, 1e-3], np.float32)},
        "c": np.array([np.nan, 2.0, np.inf], np.float32),
        "d": [np.full(3, -np.inf, np.float32), np.zeros(0, np.float32)],
    }


def test_totals_are_the_statistics_of_all_values_together():
    tree = planted_tree()
    stats = leaf_statistics(tree)
    for prefix, parts in [("a", jax.tree.leaves(tree["a"])), ("d", tree["d"]), ("", jax.tree.leaves(tree))]:
        total = stats.total(prefix)
        values = np.concatenate([part.ravel() for part in parts])
        check(total, values)
        assert (total.count, total.bytes, total.path) == (values.size, values.nbytes, prefix)
    assert combine("none", []).count == 0


def test_a_total_of_large_and_of_tiny_values_does_not_overflow():
    total = leaf_statistics([np.array([3e300, -3e300]), np.array([4e300]), np.array([1e-300])]).total()
    assert total.norm == pytest.approx(math.sqrt(34) * 1e300)
    assert total.std == pytest.approx(np.array([3, -3, 4, 0]).std() * 1e300)


def test_statistics_are_found_by_path_and_by_pattern():
    stats = leaf_statistics(planted_tree())
    assert list(stats) == ["a/b", "a/w", "c", "d/0", "d/1"]
    assert list(stats["a/*"]) == ["a/b", "a/w"]
    assert stats["a/*"].column("zeros").tolist() == [1, 0]
    assert stats["a/*"].column("histogram").shape == (2, 49)
    assert stats["a/*"].finite
    assert not stats.finite
    with pytest.raises(ContextKeyError, match=r"^No 'a/x' in these statistics\. Did you mean 'a/w'"):
        stats["a/x"]
    with pytest.raises(ContextKeyError, match=r"^No 'e' in these statistics\. There is a, a/b, a/w, c"):
        stats.total("e")


def test_the_worst_leaves_come_first():
    assert list(leaf_statistics(planted_tree()).worst()) == ["c", "d/0", "a/w", "a/b", "d/1"]


def test_the_table_reads_well():
    text = repr(leaf_statistics({"w": jnp.array([[3.0, 0.0], [-4.0, jnp.nan]]), "k": jax.random.key(0)}))
    assert text.splitlines() == [
        "Statistics of 2 leaves: 5 values, 24 bytes",
        "                 norm     mean    std  min  max   zero",
        "k  key<fry>[]                                             key",
        "w  float32[2,2]     5  -0.3333  2.867   -4    3  25.0%  1 NaN",
    ]
    assert repr(leaf_statistics({})) == "Statistics of 0 leaves: 0 values, 0 bytes"


def test_a_long_table_is_cut_and_says_what_it_hides():
    values = [jnp.ones(2)] * 50 + [jnp.array([jnp.nan, 1])]
    text = repr(leaf_statistics(values))
    assert text.splitlines()[-1] == "… and 11 more, 1 of them not finite; see worst()"
    assert len(text.splitlines()) == 1 + 1 + 40 + 1
