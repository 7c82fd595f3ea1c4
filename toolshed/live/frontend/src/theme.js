// Colours: those of the notebook where it has some, and a palette that colour-blind people can tell apart.

// After Okabe and Ito's palette; blue and orange first, as most panels hold two lines.
const PALETTES = {
  light: { lines: ["#0072b2", "#d55e00", "#00805f", "#b4508c"], alarm: "#b3261e", bad: "#c4161c" },
  dark: { lines: ["#56b4e9", "#f0a030", "#35c69c", "#e59ac6"], alarm: "#ff8a80", bad: "#d8232a" },
};

const ENDS = ["transitionend", "transitioncancel"]; // while JupyterLab loads a theme it is cut short
const PIXEL = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });

/** Any CSS colour as red, green and blue, 0 to 255 each: what a canvas makes of it. */
function components(color) {
  const context = PIXEL.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/**
 * The colours to draw with, kept as the page has them now.
 *
 * A page changes its theme in many ways: attributes, classes, another style sheet. All end in another
 * computed colour, and that runs a transition of one millisecond, whose end is listened to.
 */
export class Theme {
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.read();
    this.listener = (event) => {
      if (event.target === root && event.propertyName === "color") requestAnimationFrame(() => this.read() && this.onChange());
    };
    for (const name of ENDS) root.addEventListener(name, this.listener);
  }

  /** Reads the colours; says whether any changed. */
  read() {
    const style = getComputedStyle(this.root);
    this.rgb = components(style.color);
    const [red, green, blue] = this.rgb;
    const dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 127;
    const palette = PALETTES[dark ? "dark" : "light"];
    const before = JSON.stringify([this.ink, this.font, this.dark]);
    this.dark = dark;
    this.ink = style.color;
    this.font = style.fontFamily;
    this.lines = palette.lines;
    this.alarm = palette.alarm;
    this.bad = palette.bad;
    this.root.dataset.theme = dark ? "dark" : "light";
    palette.lines.forEach((color, i) => this.root.style.setProperty(`--tl-line-${i}`, color));
    this.root.style.setProperty("--tl-alarm", palette.alarm);
    return JSON.stringify([this.ink, this.font, this.dark]) !== before;
  }

  /** The colour of text with so much opacity. */
  shade(opacity) {
    return `rgba(${this.rgb.join(",")},${opacity})`;
  }

  dispose() {
    for (const name of ENDS) this.root.removeEventListener(name, this.listener);
  }
}
