// The picture that stays in the notebook is not needed beside the living view. In JupyterLab a rule of CSS
// hides it; elsewhere, where both lie in one document, this does.

/** Hides the pictures of a run; gives back what shows them again. */
export function hideTwins(key) {
  if (!key) return () => {};
  const rule = document.createElement("style");
  rule.textContent = `.toolshed-twin-${CSS.escape(key)} { display: none !important; }`;
  document.head.append(rule);
  return () => rule.remove();
}
