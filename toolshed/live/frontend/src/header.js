// The header: what the run is called, how it fares in words, and its numbers.
import { make, setAttribute, setText } from "./dom.js";
import { NONE, bytes, count, duration, number, value } from "./format.js";

const WORDS = {
  ready: "Ready",
  training: "Training",
  pausing: "Pausing",
  paused: "Paused",
  evaluating: "Evaluating",
  finished: "Finished",
  stopped: "Stopped",
  failed: "Failed",
};

/** What a figure shows: its label, its text of the head, and whether it takes part at all. */
const FIGURES = [
  ["Step", (head) => (head.goal === null ? count(head.step) : `${count(head.step)} / ${count(head.goal)}`)],
  ["Epoch", ({ epoch }) => (number(epoch) === null ? NONE : number(epoch).toFixed(2))],
  ["Elapsed", ({ elapsed }) => duration(number(elapsed) ?? NaN)],
  ["Left", ({ remaining }) => duration(number(remaining) ?? NaN)],
  ["Steps/s", ({ steps_per_second: rate }) => speed(rate)],
  ["Examples/s", ({ examples_per_second: rate }) => speed(rate), (head) => head.examples_per_second !== null],
  ["Device memory", (head) => share(head.device_bytes, head.device_limit), (head) => head.device_bytes !== null],
  ["Snapshots", (head) => share(head.snapshot_bytes, head.snapshot_budget)],
];

function speed(rate) {
  const each = number(rate);
  return each === null ? NONE : each >= 100 ? count(each) : value(each, 3);
}

function share(part, whole) {
  if (part === null || part === undefined) return NONE;
  return bytes(part, whole || null);
}

export class Header {
  constructor() {
    this.name = make("h2", { class: "tl-run" });
    this.word = make("span", { class: "tl-word" });
    this.status = make("span", { class: "tl-status" }, make("i", { class: "tl-lamp" }), this.word);
    this.branch = make("span", { class: "tl-branch" });
    this.title = make("div", { class: "tl-heading" }, this.name, this.status, this.branch);
    this.bar = make("div", { class: "tl-bar" }, make("i"));
    setAttribute(this.bar, "role", "progressbar");
    setAttribute(this.bar, "aria-label", "Progress");
    this.figures = make("dl", { class: "tl-figures" });
    this.texts = FIGURES.map(([label]) => {
      const text = make("dd");
      this.figures.append(make("div", { "data-figure": label }, make("dt", {}, label), text));
      return text;
    });
    this.message = make("p", { class: "tl-message", role: "status" });
    this.alarm = make("p", { class: "tl-message tl-alarm", role: "alert" });
    this.messages = make("div", { class: "tl-messages" }, this.message, this.alarm);
  }

  /** @param problem what the front end itself has to say, or nothing */
  draw(head, problem) {
    setText(this.name, head.name || "Run");
    this.name.title = head.name;
    setText(this.word, WORDS[head.status] ?? head.status);
    setText(this.branch, `on ${head.branch}`);
    this.branch.title = head.branch;
    FIGURES.forEach(([, text, takesPart], i) => {
      const shown = text(head);
      setText(this.texts[i], shown);
      this.texts[i].title = shown;
      this.texts[i].parentNode.hidden = Boolean(takesPart && !takesPart(head));
    });
    setAttribute(this.texts[0].parentNode, "data-wide", head.goal >= 10_000);
    this.drawBar(head);
    const alarms = [head.status === "failed" ? head.message : "", head.problem, problem].filter(Boolean);
    setText(this.alarm, alarms.join(" "));
    setText(this.message, head.status === "failed" ? "" : (head.message ?? ""));
    this.message.title = this.message.textContent;
    this.alarm.hidden = !alarms.length;
    this.message.hidden = alarms.length > 0 && !this.message.textContent;
  }

  drawBar({ step, goal }) {
    const share = goal ? Math.min(Math.max(step / goal, 0), 1) : 0;
    this.bar.firstChild.style.transform = `scaleX(${share})`;
    setAttribute(this.bar, "aria-valuenow", Math.round(100 * share));
    setAttribute(this.bar, "aria-valuetext", goal ? `step ${count(step)} of ${count(goal)}` : `step ${count(step)}`);
    setAttribute(this.bar, "data-goal", Boolean(goal));
  }
}
