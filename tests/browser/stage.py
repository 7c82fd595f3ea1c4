"""A blank page with the dashboard's module on it, and a kernel of two queues between it and a Dashboard."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parents[2] / "toolshed" / "live" / "static"
FRAMES = ("overview", "watched")
TRAITS = ("key", "head", "marks", "autopsy", "settings", *FRAMES)

_OPEN = """async ([source, css, width]) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const module = (await import(url)).default;
    const style = document.createElement("style");
    style.textContent = css;
    document.head.append(style);
    const values = { settings: {} };
    const listeners = {};
    window.sent = [];
    window.errors = [];
    window.addEventListener("error", (event) => window.errors.push(String(event.error)));
    const log = console.error;
    console.error = (...values) => { window.errors.push(values.join(" ")); log(...values); };
    const call = (name, ...rest) => [...(listeners[name] ?? [])].forEach((listener) => listener(...rest));
    window.model = {
        get: (name) => values[name],
        set: (name, value) => { values[name] = value; },
        save_changes: () => window.sent.push({ settings: values.settings }),
        on: (name, listener) => (listeners[name] ??= []).push(listener),
        off: (name, listener) => {
            listeners[name] = (listeners[name] ?? []).filter((one) => one !== listener);
        },
        send: (message) => window.sent.push(message),
    };
    window.bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    window.receive = (changes) => {
        for (const [name, value] of Object.entries(changes)) {
            values[name] = ["overview", "watched"].includes(name) ? window.bytes(value) : value;
        }
        for (const name of Object.keys(changes)) call(`change:${name}`);
    };
    window.answer = (message, text) => call("msg:custom", message, text ? [window.bytes(text)] : []);
    window.loseKernel = () => call("comm_live_update");
    window.listening = () => Object.values(listeners).flat().length;
    window.open_ = () => {
        const el = document.createElement("div");
        if (width) el.style.width = `${width}px`;
        document.body.append(el);
        window.close_ = module.render({ model: window.model, el });
    };
}"""


class Stage:
    """The page and the dashboard, with what is sent between them under the test's control."""

    def __init__(self, page: Any, dashboard: Any, *, width: int | None = None):
        self.page, self.dashboard = page, dashboard
        source, css = [(STATIC / f"dashboard.{kind}").read_text() for kind in ("js", "css")]
        page.evaluate(_OPEN, [source, css, width])
        self.answers: list[Any] = []
        dashboard.send = lambda message, buffers=(): self.answers.append((message, buffers))
        self._sent: dict[str, Any] = {}
        self.sync()
        page.evaluate("window.open_()")
        self.pump()

    def sync(self) -> list[str]:
        """Gives the page the traits that changed."""
        now = {name: getattr(self.dashboard, name) for name in TRAITS}
        changed = {name: value for name, value in now.items() if self._sent.get(name) != value}
        self._sent = now
        for name in changed.keys() & FRAMES:
            changed[name] = base64.b64encode(changed[name]).decode()
        self.page.evaluate("(changes) => window.receive(changes)", changed)
        return list(changed)

    def pump(self) -> list[dict[str, Any]]:
        """Gives the dashboard what the page sent, and the page the answers; returns what was sent."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        messages = self.page.evaluate("() => window.sent.splice(0)")
        for message in messages:
            if "settings" in message:
                self.dashboard.settings = message["settings"]
            else:
                self.dashboard._hear(self.dashboard, message, [])
        for message, buffers in self.answers:
            self.page.evaluate(
                "([message, text]) => window.answer(message, text)",
                [message, *(base64.b64encode(one).decode() for one in buffers)],
            )
        self.answers.clear()
        return messages

    def pump_until(self, true: Callable[[], Any]) -> None:
        """Goes on, with the newest traits, until something is true."""
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline, "it did not happen"
            self.sync()
            self.pump()

    def settle(self) -> None:
        """Until neither has anything to say."""
        while self.pump() or self.answers:
            pass

    @property
    def errors(self) -> list[str]:
        """What went wrong on the page."""
        return self.page.evaluate("() => window.errors")
