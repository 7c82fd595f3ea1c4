// The front end of toolshed.explore: written by hand, not built. Text is set as text alone, never as HTML.

const CLASSES = { quiet: "te-quiet-badge", note: "te-note-badge", good: "te-good", odd: "te-odd", bad: "te-bad", chart: "te-chart" };

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** Asks the kernel, and gives the answer to the question with its number. */
class Kernel {
  constructor(model) {
    this.model = model;
    this.waiting = new Map();
    this.next = 1;
    this.listener = (message, buffers) => {
      const done = this.waiting.get(message.number);
      this.waiting.delete(message.number);
      if (done) done(message, buffers ?? []);
    };
    model.on("msg:custom", this.listener);
  }

  ask(question, done) {
    const number = `${Math.random()}-${this.next++}`; // several front ends hear the same answers
    this.waiting.set(number, done);
    this.model.send({ ...question, number });
  }

  dispose() {
    this.model.off("msg:custom", this.listener);
  }
}

/** A line with all below it. */
function line(view, row, depth) {
  const arrow = make("span", { class: "te-arrow" }, row.opens ? "▶" : row.looks ? "·" : " ");
  const label = make("button", { class: "te-label", type: "button", "aria-expanded": "false" }, arrow);
  const parts = [["te-name", row.name], ["te-word", row.word], ["te-note", row.note]].filter(([, text]) => text);
  for (const [kind, text] of parts) label.append(make("span", { class: kind }, text), " ");
  for (const text of row.alarms) label.append(make("span", { class: "te-badge te-bad" }, text), " ");
  const marks = row.badges.map(([kind, text]) => make("span", { class: `te-badge ${CLASSES[kind] ?? ""}` }, text));
  const copy = make("button", { class: "te-copy", type: "button", "aria-label": "Copy the path", click: () => copyPath(copy, row.path) }, "⧉");
  const head = make("div", { class: "te-row", style: `--te-indent:${2 * depth}ch`, title: row.path, "data-path": row.path }, label, ...marks, ...(row.path ? [copy] : []));
  const inside = make("div", { hidden: "" });
  let filled = false;
  const toggle = () => {
    const opening = inside.hidden;
    inside.hidden = !opening;
    label.setAttribute("aria-expanded", String(opening));
    if (row.opens) arrow.textContent = opening ? "▼" : "▶";
    if (!opening || filled) return;
    filled = true;
    if (row.opens) view.open(row, (rows, left) => fill(view, inside, rows, left, depth + 1));
    else view.look(row, inside);
  };
  if (row.opens || row.looks) label.addEventListener("click", toggle);
  if (row.inside) {
    filled = true;
    inside.hidden = false;
    label.setAttribute("aria-expanded", "true");
    arrow.textContent = "▼";
    fill(view, inside, row.inside, row.left, depth + 1);
  }
  return make("div", {}, head, inside);
}

function fill(view, node, rows, left, depth) {
  node.replaceChildren(...rows.map((row) => line(view, row, depth)));
  if (left > 0) node.append(make("div", { class: "te-quiet", style: `padding-left:${2 * depth + 2}ch` }, `… ${left.toLocaleString("en")} more; search to see them`));
}

async function copyPath(button, path) {
  try {
    await navigator.clipboard.writeText(path);
    button.textContent = "copied";
  } catch {
    button.textContent = path; // to be copied by hand
  }
  setTimeout(() => { button.textContent = "⧉"; }, 2000);
}

// --- a look into an array ----------------------------------------------------------------------------

const COLD = [33, 102, 172], HOT = [178, 24, 43], LOW = [68, 1, 84], MID = [33, 145, 140], HIGH = [253, 231, 37];
const mix = (a, b, t) => a.map((x, i) => x + (b[i] - x) * t);

/** A value as red, green and blue: around 0 where there are both signs, else from the least to the most. */
function colorOf(low, high, ground) {
  if (low < 0 && high > 0) {
    const most = Math.max(-low, high);
    return (x) => (x < 0 ? mix(ground, COLD, Math.min(1, -x / most)) : mix(ground, HOT, Math.min(1, x / most)));
  }
  return (x) => {
    const t = high > low ? (x - low) / (high - low) : 0.5;
    return t < 0.5 ? mix(LOW, MID, 2 * t) : mix(MID, HIGH, 2 * t - 1);
  };
}

function short(x) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "-∞";
  const size = Math.abs(x);
  return x === 0 ? "0" : size < 1e-3 || size >= 1e5 ? x.toExponential(2) : String(+x.toPrecision(4));
}

function heatMap(values, [rows, columns, allRows, allColumns], isDark) {
  let low = Infinity, high = -Infinity;
  for (const x of values) if (Number.isFinite(x)) { low = Math.min(low, x); high = Math.max(high, x); }
  const color = colorOf(low, high, isDark ? [24, 24, 24] : [247, 247, 247]);
  const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": "values" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  values.forEach((x, i) => {
    const [r, g, b] = Number.isFinite(x) ? color(x) : [255, 0, 220];
    image.data.set([r, g, b, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  const scale = Math.max(1, Math.min(14, Math.floor(380 / columns), Math.floor(280 / rows)));
  canvas.style.width = `${columns * scale}px`;
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const pooled = rows < allRows || columns < allColumns;
  const still = `${short(low)} … ${short(high)} · ${allRows.toLocaleString("en")} × ${allColumns.toLocaleString("en")}${pooled ? ", largest magnitude of each place" : ""}`;
  const caption = make("figcaption", {}, still);
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
    const row = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
    const at = pooled ? `near [${Math.floor((row * allRows) / rows)}, ${Math.floor((column * allColumns) / columns)}]` : `[${row}, ${column}]`;
    caption.textContent = `${at} = ${short(values[row * columns + column])}`;
  });
  canvas.addEventListener("mouseleave", () => { caption.textContent = still; });
  return make("figure", { class: "te-map" }, canvas, caption);
}

function histogram(counts, edges, ink) {
  const width = 7, height = 90, most = Math.log1p(Math.max(...counts));
  const canvas = make("canvas", { width: 2 * width * counts.length, height: 2 * (height + 14), role: "img", "aria-label": "histogram" });
  canvas.style.width = `${width * counts.length}px`;
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.fillStyle = "#4a90c4";
  counts.forEach((count, i) => {
    const tall = count ? Math.max(1, (height * Math.log1p(count)) / most) : 0;
    context.fillRect(i * width, height - tall, width - 1, tall);
  });
  context.fillStyle = ink;
  context.font = "9px sans-serif";
  context.textAlign = "center";
  context.globalAlpha = 0.75;
  const middle = (counts.length - 1) / 2;
  for (const i of [4, 12, 20, middle, counts.length - 21, counts.length - 13, counts.length - 5]) {
    const text = i === middle ? "0" : short(edges[i < middle ? i : i - 1]).replace(/\.\d+e/, "e");
    context.fillText(text, (i + 0.5) * width, height + 11);
  }
  const still = "how many values, logarithmic both ways";
  const caption = make("figcaption", {}, still);
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect();
    const i = Math.min(counts.length - 1, Math.floor(((event.clientX - box.left) / box.width) * counts.length));
    const low = i === 0 ? -Infinity : edges[i - 1], high = i === edges.length ? Infinity : edges[i];
    caption.textContent = `${counts[i].toLocaleString("en")} ${i === middle ? "zeros" : `from ${short(low)} to ${short(high)}`}`;
  });
  canvas.addEventListener("mouseleave", () => { caption.textContent = still; });
  return make("figure", { class: "te-histogram" }, canvas, caption);
}

function look(node, message, buffers, edges) {
  if (message.problem) {
    node.replaceChildren(make("div", { class: "te-look" }, message.problem));
    return;
  }
  const ink = getComputedStyle(node).color;
  const isDark = (ink.match(/[\d.]+/g) ?? [0]).slice(0, 3).every((x) => +x > 127);
  const parts = [make("div", { class: "te-numbers" }, ...message.numbers.flatMap(([name, text]) => [make("span", { class: "te-quiet" }, name), make("span", {}, text)]))];
  if (message.histogram.some((count) => count)) parts.push(histogram(message.histogram, edges, ink));
  if (buffers.length) {
    const bytes = buffers[0];
    const data = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    if (data.length) parts.push(heatMap(data, message.shape, isDark));
  }
  if (message.words) parts.push(make("div", {}, message.words));
  node.replaceChildren(make("div", { class: "te-look" }, ...parts));
}

// --- the whole ---------------------------------------------------------------------------------------

function render({ model, el }) {
  const kernel = new Kernel(model);
  const tree = make("div", { class: "te-tree" });
  const looks = new Map(); // where an array is looked into, and how that is drawn
  const said = make("span", { class: "te-quiet", role: "status" });
  const problem = (message) => { said.textContent = message.problem ?? ""; return message.problem; };
  const view = {
    open: (row, done) => kernel.ask({ kind: "open", id: row.id }, (answer) => problem(answer) || done(answer.rows, answer.left)),
    look: (row, node) => kernel.ask({ kind: "look", id: row.id }, (answer, buffers) => {
      looks.set(node, () => look(node, answer, buffers, model.get("edges")));
      looks.get(node)();
    }),
  };
  const search = make("input", { type: "search", placeholder: "path, part of one, or **/pattern", "aria-label": "Search by path" });
  const worst = make("button", { class: "te-worst", type: "button", "aria-pressed": "false" }, "worst first");
  const root = make("div", { class: "toolshed-explorer" }, make("div", { class: "te-bar" }, search, worst, said), tree);
  let newest = 0;
  const whole = () => { said.textContent = ""; looks.clear(); tree.replaceChildren(...model.get("rows").map((row) => line(view, row, 0))); };
  const find = () => {
    const text = search.value.trim(), isWorst = worst.getAttribute("aria-pressed") === "true";
    const mine = ++newest;
    if (!text && !isWorst) return whole();
    kernel.ask({ kind: "find", text, worst: isWorst }, (answer) => {
      if (mine !== newest || problem(answer)) return;
      said.textContent = `${(answer.rows.length + answer.left).toLocaleString("en")} arrays`;
      looks.clear();
      fill(view, tree, answer.rows, answer.left, 0);
    });
  };
  let timer = null;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(find, 150); });
  worst.addEventListener("click", () => {
    worst.setAttribute("aria-pressed", String(worst.getAttribute("aria-pressed") !== "true"));
    find();
  });
  let ink = null;
  const followTheme = () => { // a canvas keeps the ink that it was drawn with
    const now = getComputedStyle(root).color;
    if (now === ink) return;
    ink = now;
    for (const draw of looks.values()) draw();
  };
  root.addEventListener("transitionend", followTheme);
  const sight = new IntersectionObserver(followTheme); // notebooks take out of the page what is out of sight
  sight.observe(root);
  whole();
  el.append(root);
  return () => { clearTimeout(timer); sight.disconnect(); kernel.dispose(); root.remove(); };
}

export default { render };
