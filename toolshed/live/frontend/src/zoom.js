// Asks the kernel for a part of the history at screen resolution; one question at a time, the newest next.
import { decode } from "./frames.js";

const AGAIN = 500; // milliseconds between two questions about a part that still grows
const PATIENCE = 5000; // milliseconds after which an answer is no longer waited for

export class Zoom {
  /**
   * @param ask called with a message for the kernel; `onAnswer` when there is something new to draw
   * @param kind of the messages; `open` makes of an answer's bytes what is drawn
   */
  constructor(view, ask, onAnswer, kind = "window", open = decode) {
    this.kind = kind;
    this.open = open;
    this.view = view;
    this.ask = ask;
    this.onAnswer = onAnswer;
    this.number = 0;
    this.sent = null;
    this.next = null;
    this.answer = null;
  }

  clear() {
    this.next = null;
    this.answer = null;
    this.sent = null;
  }

  /** Wants the values from `start` to `stop` with so many points a line. */
  want(start, stop, points, ids) {
    this.next = { start: Math.floor(start), stop: Math.ceil(stop), points, ids };
    this.send();
  }

  /** The same again, as the history grew; not too often. */
  refresh() {
    if (!this.answer || this.next || this.sent || performance.now() - this.answer.at < AGAIN) return;
    this.next = this.answer.question;
    this.send();
  }

  send() {
    if (!this.next || (this.sent && performance.now() - this.sent.at < PATIENCE)) return;
    this.number += 1;
    this.sent = { number: this.number, question: this.next, at: performance.now() };
    this.next = null;
    this.ask({ kind: this.kind, view: this.view, number: this.number, ...this.sent.question });
  }

  /** A message of the kernel: ours, or for another front end. */
  receive(message, buffers) {
    if (message?.kind !== this.kind || message.view !== this.view || message.number !== this.sent?.number) return;
    this.answer = { frame: this.open(buffers[0]), question: this.sent.question, at: performance.now() };
    this.sent = null;
    this.onAnswer();
    this.send();
  }

  /** The lines of the answer, if it covers a part of the axis. */
  covering(start, stop) {
    const question = this.answer?.question;
    return question && question.start <= start && question.stop >= stop ? this.answer.frame : null;
  }
}
