// One panel: a title, a legend that hides lines, and a chart whose paper, axes and pointer are uPlot's.
import uPlot from "uplot";
import { make, setAttribute, setText } from "./dom.js";
import { nearest } from "./frames.js";
import { count, number, value } from "./format.js";
import { drawMarks, marksNear, marksOf } from "./marks.js";
import { drawLine, extent } from "./pen.js";
import { logTexts, logTicks, texts } from "./ticks.js";

const HEIGHT = 176; // CSS pixels, with the axis
const OTHERS = "others";
const COLORS = 4;
const WHOLE = Array.from({ length: 12 }, (_, i) => [1, 2, 5].map((digit) => digit * 10 ** i)).flat();

export class Panel {
  /**
   * @param title of the panel, which is also its key
   * @param view what the panels share: `domain()`, `theme`, `settings`, `lines(panel)`, `point`, `zoomTo`, `change`
   */
  constructor(title, view) {
    this.title = title;
    this.view = view;
    this.lines = [];
    this.marks = [];
    this.entries = new Map();
    this.chart = null;
    this.build();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.plot);
  }

  build() {
    const { view, title } = this;
    this.note = make("span", { class: "tl-note" });
    this.log = make("button", { type: "button", class: "tl-switch", click: () => view.toggleLog(title) }, "log");
    this.log.title = "Logarithmic y axis";
    this.log.setAttribute("aria-label", `${title}: logarithmic y axis`);
    this.legend = make("div", { class: "tl-legend", role: "group", "aria-label": `Lines of ${title}` });
    this.tip = make("div", { class: "tl-tip" });
    this.plot = make("div", {
      class: "tl-plot",
      tabindex: 0,
      role: "group",
      "aria-roledescription": "chart",
      keydown: (event) => this.key(event),
      blur: () => view.point(null, this),
    });
    const heading = make("h3", { class: "tl-title", title }, title);
    const head = make("div", { class: "tl-panel-head" }, heading, this.note, this.log);
    this.node = make("section", { class: "tl-panel", "data-panel": title }, head, this.legend, this.plot);
  }

  dispose() {
    this.observer.disconnect();
    this.chart?.destroy();
    this.chart = null;
  }

  isLog() {
    return this.view.settings.log.includes(this.title);
  }

  /** Of the axes; the page may not have told it yet when the first chart is made. */
  font() {
    return `11px ${this.view.theme.font || "sans-serif"}`;
  }

  isHidden(label) {
    return this.view.settings.off.includes(`${this.title}\n${label}`);
  }

  resize() {
    const width = Math.floor(this.plot.clientWidth);
    if (width < 40) return;
    if (!this.chart) this.view.schedule();
    else if (width !== this.chart.width) this.chart.setSize({ width, height: HEIGHT });
  }

  /** Draws the panel as things are now. */
  draw(panel, marks) {
    const width = Math.floor(this.plot.clientWidth);
    this.panel = panel;
    this.lines = this.view.lines(panel);
    this.marks = marksOf(panel, marks, this.lines);
    this.updateLegend();
    setAttribute(this.log, "aria-pressed", this.isLog());
    if (width < 40) return;
    const [start, stop] = this.view.domain();
    const [low, high, note] = this.range(start, stop);
    this.quiet = note;
    const data = [
      [start, stop],
      [low, high],
    ];
    if (this.chart && (this.chart.logarithmic !== this.isLog() || this.chart.font !== this.font())) {
      this.chart.destroy();
      this.chart = null;
    }
    if (this.chart) this.chart.setData(data);
    else this.open(width, data);
    this.showPointer();
  }

  /** The lines that are not hidden. */
  shown() {
    return this.lines.filter((line) => !this.isHidden(line.current ? line.label : OTHERS));
  }

  /** The y axis' ends, and what there is to say about them. */
  range(start, stop) {
    const [low, high, positive] = extent(this.shown(), start, stop);
    if (this.isLog()) {
      if (!(positive < Infinity)) return [0.1, 1, high > -Infinity ? "no value above 0" : ""];
      const pad = Math.max((high / positive) ** 0.06, 1.02);
      return [positive / pad, high * pad, low <= 0 ? "values ≤ 0 are not on the log scale" : ""];
    }
    if (!(low <= high)) return [0, 1, ""];
    const pad = high > low ? 0.07 * (high - low) : Math.abs(high) * 0.05 || 1;
    return [low - pad, high + pad, ""];
  }

  open(width, data) {
    const { view } = this;
    const axis = {
      stroke: () => view.theme.shade(0.75),
      font: this.font(),
      grid: { stroke: () => view.theme.shade(0.1), width: 1 },
      ticks: { stroke: () => view.theme.shade(0.1), width: 1, size: 4 },
    };
    const logarithmic = this.isLog();
    const decades = { splits: (u, axis, low, high) => logTicks(low, high), filter: (u, splits) => splits, values: logTexts };
    this.chart = new uPlot(
      {
        width,
        height: HEIGHT,
        padding: [4, 20, 0, 0],
        legend: { show: false },
        scales: {
          x: { time: false, range: (u, min, max) => [min, max] },
          y: { distr: logarithmic ? 3 : 1, range: (u, min, max) => [min, max] },
        },
        axes: [
          { ...axis, size: 24, gap: 3, values: texts, space: 56, incrs: WHOLE },
          { ...axis, size: 56, gap: 4, values: texts, space: 26, ...(logarithmic ? decades : {}) },
        ],
        series: [{}, { paths: () => null, points: { show: false } }],
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: true, y: false, setScale: false, dist: 4 },
          bind: { dblclick: () => () => (view.zoomTo(null), null) },
        },
        hooks: {
          draw: [(u) => this.paint(u)],
          setCursor: [(u) => this.pointed(u)],
          setSelect: [(u) => this.selected(u)],
        },
      },
      data,
      this.plot,
    );
    this.chart.logarithmic = logarithmic;
    this.chart.font = this.font();
    this.dots = new Map();
    this.chart.over.append(this.tip);
  }

  paint(u) {
    const { ctx, bbox } = u;
    const lines = this.shown();
    ctx.save();
    ctx.beginPath();
    const beyond = 4 * (devicePixelRatio || 1); // so that points at the ends are whole
    ctx.rect(bbox.left - beyond, bbox.top, bbox.width + 2 * beyond, bbox.height);
    ctx.clip();
    for (const line of lines) if (!line.current) drawLine(u, line, { color: this.color(line), faint: true });
    for (const line of lines) if (line.current) drawLine(u, line, { color: this.color(line), faint: false });
    drawMarks(u, this.marks, this.view.theme);
    ctx.restore();
  }

  color(line) {
    return this.view.theme.lines[colorOf(this.panel.lines, line.label)];
  }

  // --- the pointer ---------------------------------------------------------------------------------

  pointed(u) {
    if (!u.cursor.event) return; // it was us who moved it
    const { left } = u.cursor;
    this.view.point(left < 0 ? null : Math.round(u.posToVal(left, "x")), this, true);
  }

  selected(u) {
    const { left, width } = u.select;
    if (width < 4) return;
    const range = [Math.round(u.posToVal(left, "x")), Math.round(u.posToVal(left + width, "x"))];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.view.zoomTo(range);
  }

  /** Shows the values at the view's pointer, or the last ones where it points nowhere. */
  showPointer() {
    const { chart, view } = this;
    const step = view.pointer;
    if (!chart) return;
    const left = step === null ? -10 : chart.valToPos(step, "x");
    if (view.pointedIn !== this) chart.setCursor({ left, top: step === null ? -10 : 10 }, false);
    setText(this.note, step === null ? (this.quiet ?? "") : `step ${count(step)}`);
    for (const [label, { text }] of this.entries) setText(text, this.valueOf(label, step)?.text ?? "");
    this.showDots(step);
    this.showTip(step === null ? [] : marksNear(chart, this.marks, left), left);
    setAttribute(this.plot, "aria-label", this.describe());
  }

  /** A line's value at a step: `{index, at, text}`, or null where it has none. */
  valueOf(label, step) {
    const line = this.lines.find((one) => one.current && one.label === label);
    if (!line || this.isHidden(label) || (step !== null && !line.steps.length)) return null;
    if (step === null) return { text: value(number(line.last) ?? line.mean.at(-1)) };
    const { low, high, mean, smooth } = line;
    const index = nearest(line.steps, step);
    const one = low[index] === high[index];
    const text = one ? value(mean[index]) : `≈${value(mean[index], 3)}`;
    const words = one ? text : `${value(low[index], 3)} to ${value(high[index], 3)}`;
    return { index, at: (smooth ?? mean)[index], text, words, line };
  }

  showDots(step) {
    const { chart, dots } = this;
    for (const label of this.entries.keys()) {
      if (!dots.has(label)) dots.set(label, chart.over.appendChild(make("i", { class: "tl-dot" })));
      const dot = dots.get(label);
      const found = step === null ? null : this.valueOf(label, step);
      dot.hidden = !found;
      if (!found) continue;
      dot.style.background = this.color(found.line);
      const x = chart.valToPos(found.line.steps[found.index], "x");
      const y = chart.valToPos(found.at, "y");
      dot.hidden = !(x >= 0 && x <= chart.over.clientWidth && y >= 0 && y <= chart.over.clientHeight);
      dot.style.transform = `translate(${x}px, ${y}px)`;
    }
  }

  showTip(marks, left) {
    const { tip, chart } = this;
    tip.hidden = !marks.length;
    if (!marks.length) return;
    const lines = marks.slice(0, 6).map((mark) => `step ${count(mark.step)}: ${mark.text}`);
    if (marks.length > 6) lines.push(`and ${count(marks.length - 6)} more`);
    setText(tip, lines.join("\n"));
    const width = chart.over.clientWidth;
    tip.classList.toggle("tl-left", left > width / 2);
    tip.style.left = left > width / 2 ? "" : `${Math.max(left, 0) + 8}px`;
    tip.style.right = left > width / 2 ? `${Math.max(width - left, 0) + 8}px` : "";
  }

  /** The values in words, for those who do not see the chart. */
  describe() {
    const { pointer } = this.view;
    const values = [...this.entries.keys()]
      .map((label) => [label, this.valueOf(label, pointer)])
      .filter(([, found]) => found)
      .map(([label, { words, text }]) => `${label} ${words ?? text}`);
    const step = pointer ?? this.view.lastStep();
    const there = pointer !== null && this.chart
      ? marksNear(this.chart, this.marks, this.chart.valToPos(pointer, "x")).map(({ text }) => text)
      : [];
    if (!values.length) return `${this.title}: no values yet`;
    return [`${this.title} at step ${count(step)}: ${values.join(", ")}`, ...there].join(". ");
  }

  key(event) {
    const { view } = this;
    const [start, stop] = view.domain();
    const at = view.pointer ?? Math.round((start + stop) / 2);
    const move = (step) => view.point(Math.min(Math.max(step, start), stop), this);
    const zoom = (factor) => {
      const half = Math.max(((stop - start) / 2) * factor, 1);
      view.zoomTo([at - half, at + half]);
    };
    const pan = (part) => view.zoomTo([start + part * (stop - start), stop + part * (stop - start)]);
    const actions = {
      ArrowLeft: () => (event.shiftKey ? pan(-0.25) : move(this.neighbour(at, -1))),
      ArrowRight: () => (event.shiftKey ? pan(0.25) : move(this.neighbour(at, 1))),
      Home: () => move(Math.ceil(start)),
      End: () => move(Math.floor(stop)),
      "+": () => zoom(0.5),
      "=": () => zoom(0.5),
      "-": () => zoom(2),
      0: () => view.zoomTo(null),
      Escape: () => view.zoomTo(null),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** The step of the next value to the left or right of a step; at most a fiftieth of the axis at once. */
  neighbour(step, direction) {
    const line = this.shown().find(({ current, steps }) => current && steps.length);
    if (!line) return step;
    const [start, stop] = this.view.domain();
    const far = step + direction * Math.max((stop - start) / 100, 1);
    let index = nearest(line.steps, far);
    if (line.steps[index] === step) index += direction;
    return line.steps[Math.min(Math.max(index, 0), line.steps.length - 1)];
  }

  // --- the legend ----------------------------------------------------------------------------------

  updateLegend() {
    const labels = this.panel.lines.map(({ label }) => label);
    const branches = this.lines.some(({ current }) => !current);
    const key = JSON.stringify([labels, branches]);
    if (key !== this.legendKey) this.buildLegend(labels, branches);
    this.legendKey = key;
    for (const button of this.legend.children) {
      setAttribute(button, "aria-pressed", !this.isHidden(button.dataset.label));
    }
  }

  buildLegend(labels, branches) {
    this.entries.clear();
    this.legend.replaceChildren();
    for (const label of branches ? [...labels, OTHERS] : labels) {
      const place = labels.indexOf(label);
      const swatch = make("i", { class: place < 0 ? "tl-swatch tl-faint" : "tl-swatch" });
      swatch.style.setProperty("--tl-line", `var(--tl-line-${colorOf(this.panel.lines, label)})`);
      const text = make("span", { class: "tl-value" });
      const name = make("span", { class: "tl-name" }, label);
      const press = () => this.view.toggleLine(this.title, label);
      const button = make("button", { type: "button", class: "tl-entry", "data-label": label, click: press });
      button.append(swatch, name, ...(place < 0 ? [] : [text]));
      button.title = place < 0 ? "Show or hide other branches" : `Show or hide ${label}`;
      this.legend.append(button);
      if (place >= 0) this.entries.set(label, { text });
    }
  }
}

/** Which colour a line of a panel has: train and eval the same ones everywhere. */
function colorOf(lines, label) {
  if (label === "train") return 0;
  if (label === "eval") return 1;
  return Math.max(lines.findIndex((line) => line.label === label), 0) % COLORS;
}
