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

/** A small picture of one path, 16 units wide and high. */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  const shape = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "tl-icon");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}
