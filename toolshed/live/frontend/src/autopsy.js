// The autopsy: which operation made the value that stopped the run, and the batch that did it. All is text.
import { make, setText } from "./dom.js";
import { count } from "./format.js";

const COLUMNS = ["field", "type", "least", "largest", "NaN", "±∞", "in examples"];

export class Autopsy {
  constructor() {
    this.title = make("span", { class: "tl-autopsy-title" });
    this.headline = make("span", {});
    this.summary = make("summary", {}, this.title, this.headline);
    this.body = make("div", { class: "tl-autopsy-body" });
    this.node = make("details", { class: "tl-autopsy" }, this.summary, this.body);
    this.node.hidden = true;
    this.shown = "";
  }

  /** Shows the newest; it is open while the run rests where it failed. */
  draw(found, status) {
    const { step, headline, lines = [] } = found;
    this.node.hidden = step === undefined;
    if (this.node.hidden) return;
    const failed = status === "failed";
    const key = JSON.stringify(found);
    if (key !== this.shown) {
      setText(this.title, `Autopsy of step ${count(step)}`);
      setText(this.headline, headline);
      this.body.replaceChildren(explain(lines), ...batch(found));
      this.node.dataset.autopsy = step;
      this.node.open = failed;
    } else if (failed !== this.failed) this.node.open = failed;
    this.shown = key;
    this.failed = failed;
  }
}

function explain(lines) {
  const rows = lines.map(([label, text]) => {
    const words = label ? make("span", {}, text) : make("code", {}, text);
    return make("div", {}, make("dt", {}, label), make("dd", {}, words));
  });
  return make("dl", { class: "tl-facts" }, ...rows);
}

function batch({ place, examples, fields = [], left_out: rest }) {
  if (!fields.length) return [];
  const head = make("tr", {}, ...COLUMNS.map((name) => make("th", { scope: "col" }, name)));
  const rows = fields.map((cells) => {
    const bad = cells[4] !== "0" || cells[5] !== "0";
    const [name, ...others] = cells;
    const title = make("th", { scope: "row", title: name }, name);
    return make("tr", bad ? { class: "tl-bad" } : {}, title, ...others.map((text) => make("td", {}, text)));
  });
  const table = make("table", { class: "tl-table" }, make("thead", {}, head), make("tbody", {}, ...rows));
  const words = [place ? `It was ${place}.` : "Its batch:"];
  if (examples) words.push(`The operation's result is not finite in example ${examples}.`);
  if (rest) words.push(`${rest} more fields are not listed.`);
  return [make("p", { class: "tl-rest" }, words.join(" ")), make("div", { class: "tl-scroll" }, table)];
}
