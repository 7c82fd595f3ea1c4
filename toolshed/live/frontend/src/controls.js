// What steers the run: buttons and fields. Each only asks; what the run then does comes back as its state.
import { icon, make, setAttribute, setText } from "./dom.js";

const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  step: "M3 2.5v11l7-5.5zM11 2.5h2.2v11H11z",
  back: "M13 2.5v11L6 8zM2.8 2.5H5v11H2.8z",
  stop: "M3 3h10v10H3z",
  save: "M8 10.5 3.8 6.3l1.2-1.2 2.1 2.1V1.5h1.8v5.7L11 5.1l1.2 1.2zM2.5 12h11v2h-11z",
};
const BUSY = ["training", "evaluating", "pausing"];
const FEW = 3; // fields of which all are shown; of more only the learning rates, until one asks for them
const PATIENCE = 3000; // milliseconds until a button may be pressed again though nothing came back

/** What the first button does in each state of the run. */
function primary(status) {
  if (status === "pausing") return { action: "pause", label: "Pausing", picture: "pause" };
  if (BUSY.includes(status)) return { action: "pause", label: "Pause", picture: "pause" };
  if (status === "paused") return { action: "resume", label: "Resume", picture: "play" };
  return { action: "train", label: "Train", picture: "play" };
}

export class Controls {
  /** @param request called as `request(action, arguments)` */
  constructor(request) {
    this.request = request;
    this.buttons = {};
    this.node = make("div", { class: "tl-buttons", role: "toolbar", "aria-label": "Run" });
    const add = (key, label, picture, title) => {
      const text = make("span", {}, label);
      const press = () => this.press(key);
      const button = make("button", { type: "button", class: "tl-button", "data-button": key, title, click: press });
      button.append(icon(ICONS[picture]), text);
      this.buttons[key] = { button, text, action: key };
      this.node.append(button);
    };
    add("primary", "Train", "play", "Train, pause or go on");
    add("step", "Step", "step", "Make exactly one step");
    add("back", "Back", "back", "Go back by one step");
    add("stop", "Stop", "stop", "Stop training");
    add("save", "Save", "save", "Save a checkpoint");
  }

  press(key) {
    const { button, action } = this.buttons[key];
    if (button.getAttribute("aria-disabled") === "true") return;
    this.request(action, {});
    setAttribute(button, "aria-busy", true);
    this.waiting = { key, until: performance.now() + PATIENCE };
  }

  draw({ status, step, can_save: canSave }, alive) {
    const { action, label, picture } = primary(status);
    const first = this.buttons.primary;
    first.action = action;
    setText(first.text, label);
    setAttribute(first.button.querySelector("path"), "d", ICONS[picture]);
    const busy = BUSY.includes(status);
    const enabled = {
      primary: status !== "pausing",
      step: !busy,
      back: !busy && step > 0,
      stop: busy || status === "paused",
      save: true,
    };
    this.buttons.save.button.hidden = !canSave;
    for (const [key, { button }] of Object.entries(this.buttons)) {
      // Not `disabled`: the focus of the keyboard would be lost each time.
      setAttribute(button, "aria-disabled", !(enabled[key] && alive));
      setAttribute(button, "aria-busy", false);
    }
  }
}

/** The fields of the hyperparameters that may be edited while the run trains. */
export class Fields {
  constructor(request, id) {
    this.request = request;
    this.id = id;
    this.fields = new Map();
    this.node = make("div", { class: "tl-fields", role: "group", "aria-label": "Hyperparameters" });
  }

  draw(hyperparameters, alive) {
    // The learning rate first: it is what people edit.
    const names = Object.keys(hyperparameters).sort((a, b) => isRate(b) - isRate(a));
    this.few = names.length > FEW ? Math.max(names.filter(isRate).length, 1) : names.length;
    if (JSON.stringify(names) !== JSON.stringify([...this.fields.keys()])) this.build(names);
    this.node.hidden = !names.length;
    for (const [name, { input }] of this.fields) {
      const current = String(hyperparameters[name]);
      input.dataset.current = current;
      input.readOnly = !alive;
      if (!input.dataset.edited) input.value = short(current);
      else if (input.dataset.asked && Math.fround(Number(input.value)) === Math.fround(Number(current))) this.settle(input);
    }
  }

  build(names) {
    this.fields.clear();
    this.node.replaceChildren();
    names.forEach((name, i) => {
      const id = `${this.id}-field-${i}`;
      const input = make("input", { id, class: "tl-input", type: "text", inputmode: "decimal", autocomplete: "off" });
      input.spellcheck = false;
      input.addEventListener("input", () => this.edit(input));
      input.addEventListener("keydown", (event) => this.key(event, name, input));
      input.addEventListener("change", () => this.submit(name, input));
      input.title = "Enter sets it, Escape takes it back";
      const label = make("label", { for: id, title: name }, name.replaceAll("_", " "));
      const field = make("div", { class: "tl-field" }, label, input);
      this.node.append(field);
      this.fields.set(name, { input, field });
    });
    this.open = false;
    this.more = make("button", { type: "button", class: "tl-switch", click: () => this.fold(!this.open) });
    if (this.few < names.length) this.node.append(this.more);
    this.fold(false);
  }

  /** Shows all fields, or the first few. */
  fold(open) {
    this.open = open;
    [...this.fields.values()].forEach(({ field }, i) => {
      field.hidden = !open && i >= this.few;
    });
    setText(this.more, open ? "fewer" : `${this.fields.size - this.few} more`);
    setAttribute(this.more, "aria-expanded", open);
  }

  edit(input) {
    input.dataset.edited = "yes";
    delete input.dataset.asked;
    setAttribute(input, "aria-invalid", !isNumber(input.value));
  }

  key(event, name, input) {
    if (event.key === "Enter") this.submit(name, input);
    if (event.key === "Escape") this.settle(input);
  }

  submit(name, input) {
    if (!input.dataset.edited || input.dataset.asked) return;
    setAttribute(input, "aria-invalid", !isNumber(input.value));
    if (!isNumber(input.value)) return;
    input.dataset.asked = "yes";
    this.request("edit", { [name]: Number(input.value) });
    // What the run made of it is shown next, also when it refused.
    setTimeout(() => input.dataset.asked && this.settle(input), PATIENCE);
  }

  settle(input) {
    delete input.dataset.edited;
    delete input.dataset.asked;
    setAttribute(input, "aria-invalid", false);
    input.value = short(input.dataset.current);
  }
}

function isRate(name) {
  return name.includes("learning_rate");
}

function isNumber(text) {
  return text.trim() !== "" && Number.isFinite(Number(text));
}

/** A number without the digits that float32 added: `0.0010000000474974513` as `0.001`. */
function short(text) {
  const number = Number(text);
  return Number.isFinite(number) ? String(Number(number.toPrecision(7))) : text;
}
