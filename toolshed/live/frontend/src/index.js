// The module that a notebook loads: it draws one view of a run into an element.
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { make } from "./dom.js";
import { View } from "./view.js";

function render({ model, el }) {
  try {
    const view = new View(model, el);
    return () => view.dispose();
  } catch (error) {
    console.error(error);
    el.replaceChildren(make("p", { role: "alert" }, `The dashboard could not be drawn: ${error}. The run goes on.`));
    return () => {};
  }
}

export default { render };
