// One view of a run: what the kernel said, what this front end chose, and the parts that show both.
import { Autopsy } from "./autopsy.js";
import { Controls, Fields } from "./controls.js";
import { make, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { decode, decodeMaps, join, lowerBound } from "./frames.js";
import { Header } from "./header.js";
import { EventLog } from "./log.js";
import { Panel } from "./panel.js";
import { NOTCHES, gatheredBefore, smooth } from "./smoothing.js";
import { Theme } from "./theme.js";
import { hideTwins } from "./twin.js";
import { WatchPanel } from "./watch.js";
import { Zoom } from "./zoom.js";

const HEARTBEAT = 15_000; // milliseconds between two signs that somebody still looks at a running run
const SETTINGS = { smoothing: 0, log: [], off: [], panels: {}, watched: {} };
let views = 0;

export class View {
  constructor(model, el) {
    this.model = model;
    this.id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
    this.domId = `toolshed-${(views += 1)}`;
    this.settings = { ...SETTINGS, ...model.get("settings") };
    this.panels = new Map();
    this.watches = new Map();
    this.question = { number: 0, panel: null };
    this.zoom = null;
    this.pointer = null;
    this.pointedIn = null;
    this.alive = true;
    this.problem = "";
    this.smoothed = new WeakMap();
    this.parts = new WeakMap();
    this.build(el);
    this.theme = new Theme(this.root, () => this.schedule());
    const ask = (message) => this.model.send(message);
    this.window = new Zoom(this.id, ask, () => this.schedule());
    this.near = new Zoom(this.id, ask, () => this.schedule(), "maps", decodeMaps);
    this.listen();
    this.take();
    this.takeMaps();
    this.showTwins = hideTwins(model.get("key"));
  }

  // --- making --------------------------------------------------------------------------------------

  build(el) {
    const request = (action, values) => this.model.send({ kind: "request", action, arguments: values });
    this.header = new Header();
    this.controls = new Controls(request);
    this.fields = new Fields(request, this.domId);
    this.log = new EventLog();
    this.autopsy = new Autopsy();
    this.said = make("p", { class: "tl-unseen", "aria-live": "polite" });
    this.grid = make("div", { class: "tl-grid" });
    this.maps = make("div", { class: "tl-maps" });
    this.empty = make("p", { class: "tl-empty" }, "No values yet. They appear here as soon as the run makes steps.");
    const top = make("div", { class: "tl-top" }, this.header.title, this.controls.node);
    const head = [this.header.bar, this.header.figures, this.header.messages, this.autopsy.node];
    const body = [...head, this.tools(), this.empty, this.grid, this.maps];
    this.root = make("section", { class: "toolshed-live", "aria-label": "Run" }, top, ...body, this.log.node, this.said);
    el.append(this.root);
  }

  /** The row of what concerns all panels: fields, smoothing, zoom, and which panels are shown. */
  tools() {
    const id = `${this.domId}-smoothing`;
    this.slider = make("input", { id, type: "range", min: 0, max: NOTCHES.length - 1, step: 1, class: "tl-slider" });
    this.slider.value = this.settings.smoothing;
    this.slider.addEventListener("input", () => this.change({ smoothing: Number(this.slider.value) }));
    this.span = make("span", { class: "tl-span", "aria-hidden": true });
    const smoothing = make("div", { class: "tl-smoothing" }, make("label", { for: id }, "Smoothing"), this.slider, this.span);
    const press = () => this.zoomTo(null);
    this.whole = make("button", { type: "button", class: "tl-button", "data-button": "whole", click: press }, "Show all");
    this.whole.title = "Show all steps again (double-click, or 0)";
    this.chips = make("div", { class: "tl-chips", role: "group", "aria-label": "Panels" });
    const right = make("div", { class: "tl-tools-right" }, smoothing, this.whole);
    return make("div", { class: "tl-tools" }, this.fields.node, right, this.chips);
  }

  listen() {
    const { model } = this;
    this.listeners = {
      "change:overview": () => this.take(),
      "change:head": () => this.schedule(),
      "change:marks": () => this.schedule(),
      "change:autopsy": () => this.schedule(),
      "change:watched": () => this.takeMaps(),
      "msg:custom": (message, buffers) => this.receive(message, buffers),
      "comm_live_update": () => this.lost(),
    };
    for (const [name, listener] of Object.entries(this.listeners)) model.on(name, listener);
    this.inSight = false;
    this.sight = new IntersectionObserver((entries) => this.see(entries.at(-1).isIntersecting));
    this.sight.observe(this.root);
    this.onPage = () => this.look();
    document.addEventListener("visibilitychange", this.onPage);
    this.heart = setInterval(() => this.isSeen() && this.isBusy() && this.look(), HEARTBEAT);
    // The notebook's own shortcuts must not act on keys that are meant for a button or a chart here;
    // those with a modifier (save, run) still do.
    this.onKey = (event) => {
      const theirs = event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
      setAttribute(this.root, "data-lm-suppress-shortcuts", theirs ? null : "true");
    };
    window.addEventListener("keydown", this.onKey, true);
    this.root.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
  }

  dispose() {
    this.tell(false);
    cancelAnimationFrame(this.request);
    clearInterval(this.heart);
    for (const [name, listener] of Object.entries(this.listeners)) this.model.off(name, listener);
    document.removeEventListener("visibilitychange", this.onPage);
    window.removeEventListener("keydown", this.onKey, true);
    this.sight.disconnect();
    this.theme.dispose();
    this.showTwins();
    for (const panel of [...this.panels.values(), ...this.watches.values()]) panel.dispose();
    this.root.remove();
  }

  // --- what the kernel says ------------------------------------------------------------------------

  head() {
    return this.model.get("head") ?? {};
  }

  isBusy() {
    return ["training", "evaluating", "pausing"].includes(this.head().status);
  }

  /** Takes a new frame. */
  take() {
    try {
      this.frame = decode(this.model.get("overview"));
    } catch (error) {
      this.fail(error);
    }
    this.smoothed = new WeakMap();
    if (this.zoom && this.isStale()) this.window.refresh();
    this.schedule();
  }

  /** Takes new maps of what is watched. */
  takeMaps() {
    try {
      this.watched = decodeMaps(this.model.get("watched"));
    } catch (error) {
      this.fail(error);
    }
    if (this.zoom) this.askForMaps();
    this.schedule();
  }

  /** Takes a message of the kernel: for this front end or for another one. */
  receive(message, buffers) {
    this.window.receive(message, buffers);
    this.near.receive(message, buffers);
    const { number, panel } = this.question;
    if (message?.kind === "ridges" && message.view === this.id && message.number === number) panel.ridges.show(message);
  }

  /** Whether the part that is shown still grows, or is another branch's. */
  isStale() {
    const { answer } = this.window;
    return answer && this.frame && (answer.frame.branch !== this.frame.branch || answer.question.stop >= this.frame.last);
  }

  lost() {
    this.alive = false;
    this.problem = "The kernel of this run is gone; these are its last values.";
    this.schedule();
  }

  fail(error) {
    console.error(error);
    this.problem = `The view could not be drawn: ${error.message ?? error}. The run goes on.`;
  }

  // --- whether somebody looks ----------------------------------------------------------------------

  see(inSight) {
    this.inSight = inSight;
    this.look();
    if (!inSight) return;
    this.theme.read();
    this.schedule();
  }

  isSeen() {
    return this.inSight && document.visibilityState === "visible";
  }

  look() {
    this.tell(this.isSeen());
    if (this.isSeen()) this.schedule();
  }

  tell(visible) {
    if (this.alive) this.model.send({ kind: "look", view: this.id, visible, version: this.frame?.version ?? -1 });
  }

  // --- what this front end chose -------------------------------------------------------------------

  change(settings) {
    this.settings = { ...this.settings, ...settings };
    this.model.set("settings", this.settings);
    this.model.save_changes();
    this.schedule();
  }

  toggle(list, item) {
    return list.includes(item) ? list.filter((one) => one !== item) : [...list, item];
  }

  toggleLog(title) {
    this.change({ log: this.toggle(this.settings.log, title) });
  }

  toggleLine(title, label) {
    this.change({ off: this.toggle(this.settings.off, `${title}\n${label}`) });
  }

  /** Another statistic of a watch, or other rows of it. */
  choose(pattern, choice) {
    const { watched } = this.settings;
    this.change({ watched: { ...watched, [pattern]: { ...watched[pattern], ...choice } } });
  }

  /** Wants to see how the values of an array moved; the newest question counts. */
  askForRidges(panel, row) {
    if (!this.alive) return;
    const number = this.question.number + 1;
    this.question = { number, panel };
    panel.ridges.wait(panel.map.rows[row]);
    this.model.send({ kind: "ridges", view: this.id, number, pattern: panel.pattern, row: panel.map.start + row });
  }

  isShown(panel) {
    return this.settings.panels[panel.title] ?? panel.shown;
  }

  zoomTo(range) {
    const [first, last] = this.ends();
    const start = range && Math.max(Math.round(Math.min(...range)), first);
    const stop = range && Math.min(Math.round(Math.max(...range)), last);
    const whole = !range || stop - start < 1 || (start <= first && stop >= last);
    this.zoom = whole ? null : [start, stop];
    if (this.zoom) this.askForWindow();
    else for (const part of [this.window, this.near]) part.clear();
    this.schedule();
  }

  /** Wants the looks of the watches in the part that is shown, each by itself where there is room. */
  askForMaps() {
    if (this.watched?.maps.length) this.near.want(...this.zoom, 0, []);
  }

  askForWindow() {
    const [start, stop] = this.zoom;
    const beside = 0.1 * (stop - start);
    const shown = this.shownPanels();
    const width = Math.max(...shown.map(({ title }) => this.panels.get(title)?.plot.clientWidth ?? 0), 300);
    const ids = shown.flatMap(({ lines }) => lines.map(({ id }) => id));
    this.askForMaps();
    this.window.want(Math.max(start - beside, 0), stop + beside, Math.min(Math.round(1.2 * width), 2000), ids);
  }

  /** Points at a step in all panels; by mouse in one of them, whose own pointer is there already. */
  point(step, panel, byMouse = false) {
    this.pointer = step;
    this.pointedIn = byMouse ? panel : null;
    for (const one of [...this.panels.values(), ...this.watches.values()]) one.showPointer();
    if (panel && document.activeElement === panel.plot && step !== null) setText(this.said, panel.describe());
  }

  // --- what the panels draw ------------------------------------------------------------------------

  ends() {
    const first = this.frame?.first ?? 0;
    const last = this.frame?.last ?? first;
    return last > first ? [first, last] : [first - 1, first + 1];
  }

  domain() {
    return this.zoom ?? this.ends();
  }

  lastStep() {
    return this.frame?.last ?? 0;
  }

  shownPanels() {
    return (this.frame?.panels ?? []).filter((panel) => this.isShown(panel));
  }

  /** The lines of a panel: at screen resolution where the kernel gave that, else from the overview. */
  lines(panel) {
    const labels = new Map(panel.lines.map(({ id, label }) => [id, label]));
    const near = this.zoom && this.window.covering(...this.zoom);
    const fine = near && near.branch === this.frame.branch ? near.lines.filter(({ id }) => labels.has(id)) : [];
    const key = ({ id, branch, current }) => `${id} ${current} ${branch}`;
    const finer = new Map(fine.map((line) => [key(line), line]));
    const coarse = this.frame.lines.filter(({ id }) => labels.has(id));
    return coarse.map((whole) => {
      const line = finer.has(key(whole)) ? this.joined(finer.get(key(whole)), whole) : whole;
      return { ...line, last: whole.last, label: labels.get(line.id), smooth: this.smoothLine(line, whole) };
    });
  }

  /** A part of a line with the values of the whole to its left and right, so that it reaches the edges. */
  joined(part, whole) {
    const kept = this.parts.get(part);
    if (kept?.whole === whole) return kept.line;
    const line = join(part, whole);
    this.parts.set(part, { whole, line });
    return line;
  }

  smoothLine(line, whole) {
    const span = NOTCHES[this.settings.smoothing] ?? 0;
    if (!span || !line.current || !line.steps.length) return null;
    const kept = this.smoothed.get(line);
    if (kept?.span === span) return kept.values;
    let before = null;
    if (whole !== line) {
      const overview = smooth(whole.steps, whole.mean, span);
      before = gatheredBefore(whole.steps, overview, lowerBound(whole.steps, line.steps[0]));
    }
    const { values } = smooth(line.steps, line.mean, span, before);
    this.smoothed.set(line, { span, values });
    return values;
  }

  // --- drawing -------------------------------------------------------------------------------------

  schedule() {
    if (this.request) return;
    this.request = requestAnimationFrame(() => {
      this.request = null;
      try {
        this.draw();
      } catch (error) {
        this.fail(error);
        this.header.draw(this.head(), this.problem);
      }
    });
  }

  draw() {
    const head = this.head();
    this.header.draw(head, this.problem);
    this.controls.draw(head, this.alive);
    this.fields.draw(head.hyperparameters ?? {}, this.alive);
    const span = NOTCHES[this.settings.smoothing] ?? 0;
    setText(this.span, span ? `${count(span)} steps` : "off");
    setAttribute(this.slider, "aria-valuetext", span ? `${count(span)} steps` : "off");
    setAttribute(this.whole, "aria-disabled", !this.zoom);
    const marks = this.model.get("marks") ?? [];
    this.log.draw(marks);
    this.autopsy.draw(this.model.get("autopsy") ?? {}, head.status);
    this.drawPanels(marks);
    this.drawMaps();
    this.root.dataset.status = head.status;
    this.root.dataset.step = head.step;
    this.root.dataset.version = this.frame?.version ?? -1;
    this.root.dataset.fine = this.zoom && this.window.covering(...this.zoom) ? "yes" : "no";
    this.root.dataset.zoom = this.zoom ? this.zoom.join(" ") : "";
  }

  drawPanels(marks) {
    const all = this.frame?.panels ?? [];
    const shown = this.shownPanels();
    this.empty.hidden = all.length > 0;
    this.drawChips(all);
    const titles = new Set(shown.map(({ title }) => title));
    for (const [title, panel] of this.panels) {
      if (titles.has(title)) continue;
      panel.dispose();
      panel.node.remove();
      this.panels.delete(title);
    }
    shown.forEach((one, i) => {
      if (!this.panels.has(one.title)) this.panels.set(one.title, new Panel(one.title, this));
      const panel = this.panels.get(one.title);
      if (this.grid.children[i] !== panel.node) this.grid.insertBefore(panel.node, this.grid.children[i] ?? null);
      if (this.isSeen() || !panel.chart) panel.draw(one, marks);
    });
  }

  drawMaps() {
    const maps = this.watched?.maps ?? [];
    const patterns = new Set(maps.map(({ pattern }) => pattern));
    for (const [pattern, panel] of this.watches) {
      if (patterns.has(pattern)) continue;
      panel.dispose();
      panel.node.remove();
      this.watches.delete(pattern);
    }
    maps.forEach((map, i) => {
      if (!this.watches.has(map.pattern)) this.watches.set(map.pattern, new WatchPanel(map.pattern, this));
      const panel = this.watches.get(map.pattern);
      if (this.maps.children[i] !== panel.node) this.maps.insertBefore(panel.node, this.maps.children[i] ?? null);
      if (this.isSeen() || !panel.place) panel.draw(this.nearer(map));
    });
  }

  /** The part of a map that is shown, where the kernel gave it by itself. */
  nearer(map) {
    const found = this.zoom && this.near.covering(...this.zoom)?.maps;
    const same = (one) => ["pattern", "statistic", "start"].every((name) => one[name] === map[name]);
    return found?.find(same) ?? map;
  }

  drawChips(all) {
    const left = this.frame?.left_out ?? 0;
    const key = JSON.stringify([left, all.map(({ title }) => title)]);
    if (key !== this.chipKey) {
      const rest = left ? [make("span", { class: "tl-rest" }, `and ${count(left)} more values, not drawn`)] : [];
      this.chips.replaceChildren(...all.map((panel) => this.chip(panel)), ...rest);
      this.chipKey = key;
    }
    this.chips.hidden = all.length < 2;
    all.forEach((panel, i) => setAttribute(this.chips.children[i], "aria-pressed", this.isShown(panel)));
  }

  chip(panel) {
    const { title } = panel;
    const press = () => this.change({ panels: { ...this.settings.panels, [title]: !this.isShown(panel) } });
    return make("button", { type: "button", class: "tl-chip", title: `Show or hide ${title}`, click: press }, title);
  }
}
