// Elements made by hand. Text is set as text alone, never as HTML: names come from models and files.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (functions are listeners) and children. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else setAttribute(node, name, value);
  }
  node.append(...children);
  return node;
}

/** Sets an attribute; null removes it. Touches nothing that is so already. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Sets the text of a node. Touches nothing that is so already. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A part of a picture with attributes. */
export function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
}

/** A small picture of one path, 16 units wide and high. */
export function icon(path) {
  const svg = shape("svg", { viewBox: "0 0 16 16", "aria-hidden": true, class: "tl-icon" });
  svg.append(shape("path", { d: path }));
  return svg;
}
