"""Which values share a panel, and the order of panels."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.live.panels import NAMES, SHOWN, lay_out


def titles(names: list[str]) -> list[str]:
    return [panel.title for panel in lay_out(names)]


def test_train_and_eval_of_one_metric_share_a_panel():
    (loss,) = lay_out(["eval/loss", "train/loss"])
    assert loss.title == "loss"
    assert loss.lines == ((1, "train"), (0, "eval"))  # train first, whichever was logged first


def test_every_other_name_is_a_panel_of_its_own():
    learning_rate, norm = lay_out(["optim/learning_rate", "optim/grad_norm"])
    assert learning_rate.lines == ((0, "learning_rate"),)
    assert norm.title == "optim/grad_norm"


def test_the_loss_comes_first_then_metrics_then_a_person_s_values_then_the_run_s():
    names = ["memory/device_bytes", "mine/norm", "optim/grad_norm", "train/accuracy", "train/loss"]
    assert titles(names) == ["loss", "accuracy", "mine/norm", "optim/grad_norm", "memory/device_bytes"]


def test_what_the_header_says_already_is_not_shown_without_being_asked_for():
    names = ["train/loss", "optim/learning_rate", "optim/b1", "speed/steps_per_second", "memory/device_bytes"]
    assert [panel.shown for panel in lay_out(names)] == [True, True, False, False, False]


def test_a_name_that_equals_a_metric_s_title_shares_its_panel():
    (panel,) = lay_out(["x", "train/x"])
    assert panel.title == "x"
    assert set(panel.lines) == {(1, "train"), (0, "x")}


def test_of_very_many_names_the_first_in_order_are_taken():
    panels = lay_out([f"mine/{i}" for i in range(100)] + ["train/loss", "eval/loss"])
    assert sum(len(panel.lines) for panel in panels) == NAMES
    assert panels[0].title == "loss"
    assert sum(panel.shown for panel in panels) == SHOWN


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(alphabet="train/evlx ", min_size=1, max_size=9), unique=True, max_size=60))
def test_each_name_is_in_one_panel_and_no_two_panels_have_one_title(names):
    panels = lay_out(names)
    places = [place for panel in panels for place, _ in panel.lines]
    assert len(set(places)) == len(places) == min(len(names), NAMES)
    assert len({panel.title for panel in panels}) == len(panels)
    for panel in panels:
        labels = [label for _, label in panel.lines]
        assert len(set(labels)) == len(labels), "a label stands for one line"
