// Ridges: the histograms of one array at several steps, one behind the other, the first at the back.
import { make, setText, shape } from "./dom.js";
import { count, tidy } from "./format.js";

const BINS = 49; // as toolshed.insight.HISTOGRAM_EDGES has them: 24 to each side of the zeros
const MIDDLE = 24;
const SMALLEST = -30; // log2 of the magnitudes that share the bins beside the zeros
const APART = 17; // from one ridge to the next, and how high one is
const HIGH = 40;
const LEFT = 62;
const FOOT = 22;
const APART_TICKS = 40; // from one label below the picture to the next, at least

export class Ridges {
  /** @param onClose called when a person closes it */
  constructor(onClose) {
    this.onClose = onClose;
    this.title = make("h4", { class: "tl-title" });
    const press = () => this.close();
    const button = make("button", { type: "button", class: "tl-switch", "aria-label": "Close the histograms", click: press }, "✕");
    this.text = make("p", { class: "tl-message" });
    this.picture = make("div", { class: "tl-picture" });
    this.node = make("div", { class: "tl-ridges", keydown: (event) => event.key === "Escape" && this.close() });
    this.node.append(make("div", { class: "tl-panel-head" }, this.title, button), this.text, this.picture);
    this.node.hidden = true;
  }

  close() {
    if (this.node.hidden) return;
    this.node.hidden = true;
    this.onClose();
  }

  /** Says that an answer is awaited. */
  wait(path) {
    this.node.hidden = false;
    setText(this.title, path);
    this.title.title = path;
    setText(this.text, "Asking the run for this array at the steps that it kept…");
    this.text.classList.remove("tl-alarm");
    this.node.dataset.state = "waiting";
  }

  /** Shows an answer of the kernel. */
  show({ error, steps, counts }) {
    if (this.node.hidden) return;
    this.text.classList.toggle("tl-alarm", Boolean(error));
    this.node.dataset.state = error ? "failed" : "shown";
    const few = steps?.length === 1 ? "There is one snapshot so far; more come while the run trains." : "";
    setText(this.text, error ?? few);
    this.picture.replaceChildren(...(error ? [] : [draw(steps, counts, this.title.textContent, Math.max(this.node.clientWidth - 22, 200))]));
  }
}

/** The picture, so many CSS pixels wide. */
function draw(steps, counts, path, wide) {
  const all = counts.flatMap((row) => row.flatMap((n, bin) => (n ? [bin] : [])));
  const first = Math.max(Math.min(...all, MIDDLE) - 2, 0);
  const last = Math.min(Math.max(...all, MIDDLE) + 2, BINS - 1);
  const x = (bin) => LEFT + ((bin - first) / (last - first)) * (wide - LEFT - 20);
  const bottom = HIGH + APART * (steps.length - 1) + 6;
  const words = `Histograms of ${path} at steps ${steps.map(count).join(", ")}; signed, logarithmic`;
  const svg = shape("svg", { viewBox: `0 0 ${wide} ${bottom + FOOT}`, role: "img", "aria-label": words });
  svg.append(...axis(first, last, x, bottom));
  steps.forEach((step, i) => {
    const base = HIGH + APART * i;
    const strength = steps.length > 1 ? 0.3 + (0.5 * i) / (steps.length - 1) : 0.8;
    svg.append(...ridge(counts[i].slice(first, last + 1), (k) => x(first + k), base, strength));
    const label = shape("text", { x: LEFT - 8, y: base, "text-anchor": "end", class: "tl-tick" });
    label.textContent = count(step);
    svg.append(label);
  });
  return svg;
}

function ridge(counts, x, base, strength) {
  const top = Math.max(...counts);
  const points = counts.map((n, k) => `${x(k).toFixed(1)} ${(base - (top ? (HIGH - 4) * (n / top) : 0)).toFixed(1)}`);
  const line = `M${points.join("L")}`;
  const area = `${line}L${x(counts.length - 1).toFixed(1)} ${base}L${x(0).toFixed(1)} ${base}Z`;
  const ground = shape("path", { d: area, class: "tl-ridge-ground" });
  const fill = shape("path", { d: area, class: "tl-ridge", "fill-opacity": strength.toFixed(2) });
  return [ground, fill, shape("path", { d: line, class: "tl-ridge-line" })];
}

/** Powers of ten to both sides of zero. */
function axis(first, last, x, bottom) {
  const place = (power) => MIDDLE + 1.5 + (power / Math.log10(2) - SMALLEST) / 2;
  const ticks = [[MIDDLE, "0"]];
  const every = (2 * (x(last) - x(first))) / (last - first) > 50 ? 1 : 2;
  for (let power = 4; power >= -8; power -= every) {
    const text = power ? tidy(`1e${power}`) : "1";
    ticks.push([place(power), text], [2 * MIDDLE - place(power), `−${text}`]);
  }
  const inside = [];
  for (const [bin, text] of ticks) {
    const isFree = inside.every(([other]) => Math.abs(x(other) - x(bin)) >= APART_TICKS);
    if (bin >= first && bin <= last && isFree) inside.push([bin, text]);
  }
  return inside.flatMap(([bin, text]) => {
    const at = x(bin).toFixed(1);
    const label = shape("text", { x: at, y: bottom + 16, "text-anchor": "middle", class: "tl-tick" });
    label.textContent = text;
    return [shape("path", { d: `M${at} 4V${bottom + 3}`, class: "tl-rule" }), label];
  });
}
