// One watch: a heat map of many arrays over time, the scale of its colours, and on demand the ridges of one.
import { make, setAttribute, setText } from "./dom.js";
import { count, value } from "./format.js";
import { heightOf, layOut, paint, paintBad } from "./heat.js";
import { color, scaleOf } from "./palette.js";
import { Ridges } from "./ridges.js";

const SCALE = 120; // CSS pixels that the scale is wide
const PAGE = 40; // rows that the kernel gives at once

export class WatchPanel {
  /** @param view what maps share: `domain()`, `theme`, `choose`, `point`, `askForRidges` */
  constructor(pattern, view) {
    this.pattern = pattern;
    this.view = view;
    this.at = null; // the cell that is pointed at: `{row, column}`
    this.build();
    this.observer = new ResizeObserver(() => view.schedule());
    this.observer.observe(this.body);
  }

  build() {
    const { pattern, view } = this;
    this.statistic = make("select", { class: "tl-select", "aria-label": `Statistic of ${pattern}` });
    this.statistic.addEventListener("change", () => view.choose(pattern, { statistic: this.statistic.value }));
    const turn = (by) => () => view.choose(pattern, { start: Math.max(this.map.start + by, 0) });
    this.before = make("button", { type: "button", class: "tl-switch", "aria-label": "Arrays before these", click: turn(-PAGE) }, "‹");
    this.after = make("button", { type: "button", class: "tl-switch", "aria-label": "Arrays after these", click: turn(PAGE) }, "›");
    this.range = make("span", { class: "tl-rest" });
    this.pages = make("span", { class: "tl-pages" }, this.before, this.range, this.after);
    const title = make("h3", { class: "tl-title", title: pattern }, pattern);
    const head = make("div", { class: "tl-panel-head" }, title, this.pages, this.statistic);
    this.canvas = make("canvas", { "aria-hidden": true });
    this.row = make("i", { class: "tl-row" });
    this.line = make("i", { class: "tl-cross" });
    this.tip = make("div", { class: "tl-tip" });
    this.body = make("div", {
      class: "tl-heat",
      tabindex: 0,
      role: "group",
      "aria-roledescription": "heat map",
      mousemove: (event) => this.hover(event),
      mouseleave: () => this.leave(),
      click: () => this.at && view.askForRidges(this, this.at.row),
      keydown: (event) => this.key(event),
      focus: () => this.body.matches(":focus-visible") && this.move(0, 0),
      blur: () => this.leave(),
    });
    this.body.append(this.canvas, this.row, this.line, this.tip);
    this.scale = make("canvas", { class: "tl-scale", "aria-hidden": true });
    this.legend = make("div", { class: "tl-keys" }, this.scale);
    this.ridges = new Ridges(() => this.body.focus());
    const help = make("span", { class: "tl-rest" }, "A click, or Enter, shows the histograms of an array.");
    const foot = make("div", { class: "tl-map-foot" }, this.legend, help);
    this.node = make("section", { class: "tl-map", "data-map": pattern }, head, this.body, foot, this.ridges.node);
  }

  dispose() {
    this.observer.disconnect();
  }

  /** The font of names and numbers. */
  font() {
    return `11px ${this.view.theme.font || "sans-serif"}`;
  }

  /** Draws the map as things are now. */
  draw(map) {
    this.map = map;
    if (this.at && (this.at.row >= map.rows.length || this.at.column >= map.columns)) this.at = null;
    this.drawHead();
    const width = Math.floor(this.body.clientWidth);
    const high = heightOf(map.rows.length);
    this.body.style.height = `${high}px`;
    if (width < 40) return;
    const ctx = sized(this.canvas, width, high);
    ctx.font = this.font();
    this.place = layOut(map, width, (text) => ctx.measureText(text).width, this.view.domain());
    this.colors = scaleOf(map.values);
    paint(ctx, map, this.place, this.colors, this.view.theme, this.font());
    this.drawScale();
    this.showPointer();
  }

  drawHead() {
    const { map } = this;
    const names = map.statistics.join("\n");
    if (names !== this.names) {
      this.statistic.replaceChildren(...map.statistics.map((name) => make("option", { value: name }, name)));
      this.names = names;
    }
    if (document.activeElement !== this.statistic) this.statistic.value = map.statistic;
    this.pages.hidden = map.total <= map.rows.length;
    setText(this.range, `${count(map.start + 1)} to ${count(map.start + map.rows.length)} of ${count(map.total)}`);
    this.before.disabled = map.start <= 0;
    this.after.disabled = map.start + map.rows.length >= map.total;
    this.node.dataset.columns = map.columns;
    this.node.dataset.statistic = map.statistic;
  }

  /** The scale of the colours, with its numbers, and what stands beside it. */
  drawScale() {
    const { colors, view } = this;
    const { low, high, zeros, bad, empty } = colors;
    const keys = [...(zeros ? ["0"] : []), ...(bad ? ["NaN, ∞"] : [])];
    const beside = 44 + keys.length * 66;
    const long = Math.max(Math.min(SCALE, this.body.clientWidth - beside), 40);
    const ctx = sized(this.scale, long + beside, 28);
    const x = (power) => 20 + ((power - low) / (high - low)) * long;
    for (let i = 0; i < long && !empty; i += 1) {
      ctx.fillStyle = color(i / (long - 1));
      ctx.fillRect(20 + i, 2, 1.5, 10);
    }
    ctx.font = this.font();
    ctx.fillStyle = view.theme.shade(0.75);
    ctx.textAlign = "center";
    const far = Math.max(Math.ceil((high - low) / 3), 1);
    const powers = [low, high];
    for (let power = Math.ceil(low); power < high; power += far) powers.push(power);
    const told = [];
    for (const power of powers) {
      if (empty || told.some((other) => Math.abs(x(other) - x(power)) < 38)) continue;
      told.push(power);
      ctx.fillRect(Math.round(x(power)) - 0.5, 12, 1, 3);
      ctx.fillText(value(Number((10 ** power).toPrecision(1)), 1), x(power), 25);
    }
    keys.forEach((key, i) => this.drawKey(ctx, key, long + 44 + i * (keys.length > 1 ? 44 : 0)));
  }

  drawKey(ctx, key, left) {
    const box = new Path2D();
    box.rect(left, 2, 14, 10);
    ctx.fillStyle = this.view.theme.shade(0.6);
    if (key === "0") ctx.fillRect(left, 7, 14, 1);
    else paintBad(ctx, box, left, left + 14, 12, this.view.theme);
    ctx.fillStyle = this.view.theme.shade(0.75);
    ctx.textAlign = "left";
    ctx.fillText(key, left + 19, 11);
  }

  // --- pointing ------------------------------------------------------------------------------------

  hover(event) {
    const { place, map, view } = this;
    if (!place || !map.columns) return;
    const box = this.body.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const row = Math.floor(y / place.high);
    if (row < 0 || row >= map.rows.length) return this.leave();
    const step = place.start + ((Math.max(x, place.left) - place.left) / (place.right - place.left)) * (place.stop - place.start);
    this.at = { row, column: this.columnOf(step) };
    view.point(Math.round(Math.min(step, place.stop)), null);
    this.showPointer();
  }

  leave() {
    this.at = null;
    this.view.point(null, null);
    this.showPointer();
  }

  /** The column that a step lies in. */
  columnOf(step) {
    const { steps } = this.map;
    let column = 0;
    while (column + 1 < steps.length && steps[column + 1] <= step) column += 1;
    return column;
  }

  /** Moves by rows and columns. */
  move(down, right) {
    const { map, view } = this;
    if (!map?.columns) return;
    const from = this.at ?? { row: 0, column: map.columns - 1 };
    const within = (at, length) => Math.min(Math.max(at, 0), length - 1);
    this.at = { row: within(from.row + down, map.rows.length), column: within(from.column + right, map.columns) };
    view.point(map.steps[this.at.column], null);
    this.showPointer();
    setText(view.said, this.describe());
  }

  key(event) {
    const far = this.map?.columns ?? 0;
    const actions = {
      ArrowUp: () => this.move(-1, 0),
      ArrowDown: () => this.move(1, 0),
      ArrowLeft: () => this.move(0, event.shiftKey ? -10 : -1),
      ArrowRight: () => this.move(0, event.shiftKey ? 10 : 1),
      Home: () => this.move(0, -far),
      End: () => this.move(0, far),
      Enter: () => this.view.askForRidges(this, (this.at ?? { row: 0 }).row),
      Escape: () => this.ridges.close(),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** Shows where the pointer is, here or in a chart. */
  showPointer() {
    const { at, place, map, view } = this;
    setAttribute(this.body, "aria-label", this.describe());
    const step = view.pointer;
    const inside = Boolean(place) && step !== null && step >= place.start && step <= place.stop;
    this.line.hidden = !inside;
    this.row.hidden = this.tip.hidden = !at || !place;
    if (inside) Object.assign(this.line.style, { left: `${place.x(step)}px`, height: `${place.bottom}px` });
    if (!at || !place) return;
    const top = at.row * place.high;
    Object.assign(this.row.style, { top: `${top}px`, height: `${place.high}px` });
    setText(this.tip, `${map.rows[at.row]}\n${this.cell(at)}`);
    const x = place.x(step ?? map.steps[at.column]);
    const middle = (place.left + place.right) / 2;
    const below = top < place.bottom / 2 || place.bottom < 90;
    this.tip.style.left = x > middle ? "" : `${Math.max(x, 0) + 12}px`;
    this.tip.style.right = x > middle ? `${this.body.clientWidth - x + 12}px` : "";
    this.tip.style.top = below ? `${top + place.high + 6}px` : "";
    this.tip.style.bottom = below ? "" : `${this.body.clientHeight - top + 6}px`;
  }

  /** The value of a cell in words. */
  cell({ row, column }) {
    const { map } = this;
    const found = map.values[row * map.columns + column];
    return `step ${count(map.steps[column])}: ${map.statistic} ${value(found)}`;
  }

  /** The map in words, for those who do not see it. */
  describe() {
    const { map, at } = this;
    if (!map?.columns) return `${this.pattern}: nothing seen yet`;
    if (at) return `${map.rows[at.row]}, ${this.cell(at)}`;
    return `${map.statistic} of ${count(map.total)} arrays that match ${this.pattern}. Arrows move, Enter shows histograms.`;
  }
}

/** A canvas of a size in CSS pixels, empty, ready to be drawn on. */
function sized(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return ctx;
}
