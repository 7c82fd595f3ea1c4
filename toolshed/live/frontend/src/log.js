// The list of what happened: the marks of the charts in words, and what has no place on a chart.
import { make, setText } from "./dom.js";
import { count } from "./format.js";

export class EventLog {
  constructor() {
    this.summary = make("summary", {}, "Events");
    this.list = make("ol", { class: "tl-events", tabindex: 0, "aria-label": "Events, newest first" });
    this.node = make("details", { class: "tl-log-of-events" }, this.summary, this.list);
    this.node.addEventListener("toggle", () => this.fill());
    this.marks = [];
  }

  draw(marks) {
    if (marks === this.marks) return;
    this.marks = marks;
    setText(this.summary, marks.length ? `Events (${count(marks.length)})` : "Events");
    this.fill();
  }

  fill() {
    if (!this.node.open) return;
    const rows = [...this.marks].reverse().map(({ step, text, kind }) => {
      return make("li", { "data-kind": kind }, make("span", { class: "tl-step" }, count(step)), make("span", {}, text));
    });
    this.list.replaceChildren(...(rows.length ? rows : [make("li", {}, "Nothing happened yet.")]));
  }
}
