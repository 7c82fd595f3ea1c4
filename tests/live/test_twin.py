"""The picture beside the widget: when it is made anew, and what it is made of."""

from __future__ import annotations

import base64
import gc
import html
import io
import re
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from tests.live.scripted import ScriptedRun, log_training, training
from toolshed.errors import ViewWarning
from toolshed.live import twin
from toolshed.live.trouble import TRIES
from toolshed.live.twin import PLACES, Twin, make_bundle

WAIT = 20.0


class Notebook:
    """Takes what is shown, as a notebook's outputs by their places."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}
        self.updates: list[str] = []

    def publish(self, bundle: dict[str, str], place: str, update: bool) -> None:
        assert update == (place in self.outputs)
        self.outputs[place] = bundle
        if update:
            self.updates.append(place)

    def wait_for(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT
        while not true():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.005)

    @property
    def texts(self) -> list[str]:
        return [bundle["text/plain"] for bundle in self.outputs.values()]


def make(run: ScriptedRun, notebook: Notebook, settings: dict[str, Any] | None = None) -> Twin:
    return Twin(run, "key", lambda: settings or {}, notebook.publish)


@pytest.fixture(autouse=True)
def soon(monkeypatch: Any) -> None:
    monkeypatch.setattr(twin, "QUIET", 0.05)


def test_the_bundle_holds_what_every_kind_of_viewer_shows():
    bundle = make_bundle(training(name='<b>&"'), "key", {})
    assert bundle["text/plain"].startswith('<b>&": training at step 1,234')
    alt, source = re.search(
        r'alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]*)"', bundle["text/html"]
    ).groups()
    assert html.unescape(alt) == bundle["text/plain"]
    assert ElementTree.fromstring(base64.b64decode(source)).tag.endswith("svg")
    assert "<svg" not in bundle["text/html"], "inline it would not survive in an untrusted notebook"
    png = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert png.size[0] == twin.WIDTH
    assert set(make_bundle(training(), "key", {}, final=False)) == {"text/plain", "text/html"}


def test_a_run_that_rests_has_its_picture_made_once_more_with_a_png():
    run, notebook = training(), Notebook()
    make(run, notebook).show()
    log_training(run.history, 1234, 1300)
    run.set(status="paused", step=1300)
    notebook.wait_for(lambda: any("paused at step 1,300" in text for text in notebook.texts))
    notebook.wait_for(lambda: "image/png" in next(iter(notebook.outputs.values())))
    updates = len(notebook.updates)
    for _ in range(5):
        run.set(status="paused")
    time.sleep(0.3)
    assert len(notebook.updates) == updates, "nothing changed"


def test_while_it_trains_the_picture_is_made_anew_only_now_and_then(monkeypatch):
    monkeypatch.setattr(twin, "EVERY", 0.5)
    run, notebook = training(), Notebook()
    make(run, notebook).show()
    start = time.monotonic()
    step = 1234
    while len(notebook.updates) < 3 and time.monotonic() < start + WAIT:
        log_training(run.history, step, step + 1)
        step += 1
        run.set(step=step)
        time.sleep(0.01)
    assert len(notebook.updates) == 3
    assert time.monotonic() - start >= 1.0


def test_only_the_newest_places_are_kept_up_to_date():
    run, notebook = training(), Notebook()
    views = make(run, notebook)
    for _ in range(PLACES + 2):
        views.show()
    run.set(status="paused", message="Paused.")
    notebook.wait_for(lambda: len(notebook.updates) >= PLACES)
    assert set(notebook.updates) == set(list(notebook.outputs)[-PLACES:])


def test_the_picture_follows_what_was_chosen_in_the_dashboard():
    run, notebook, settings = training(), Notebook(), {"panels": {"loss": False}}
    make(run, notebook, settings).show()
    (bundle,) = notebook.outputs.values()
    source = re.search(r"base64,([^\"]*)", bundle["text/html"]).group(1)
    assert b">accuracy<" in base64.b64decode(source)
    assert b">loss<" not in base64.b64decode(source)


def test_a_failure_is_one_warning_and_the_run_goes_on(monkeypatch):
    run, notebook = training(), Notebook()
    views = make(run, notebook)
    views.show()
    monkeypatch.setattr(views, "_draw", _fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(TRIES):
            log_training(run.history, 1234 + step, 1235 + step)
            run.set(status="paused", step=step)
            notebook.wait_for(lambda: views._pace._thread is None)
    (warning,) = [one for one in caught if "The picture" in str(one.message)]
    assert warning.category is ViewWarning
    assert "The picture of the run failed once, with ZeroDivisionError" in str(warning.message)
    assert run.listeners == [], "it has stopped"


def _fail(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("by the test")


def test_the_picture_does_not_keep_its_run_alive():
    run, notebook = training(), Notebook()
    views, gone = make(run, notebook), weakref.ref(run)
    views.show()
    del run
    gc.collect()
    assert gone() is None
    views.show()
    assert len(notebook.outputs) == 1
