// Numbers in words: short, and of a width that hardly changes.

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const NONE = "–";
const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** A number that may have come as text, because JSON has no NaN. */
export function number(value) {
  return value === null || value === undefined ? null : Number(value);
}

/** A whole number in groups of three. */
export function count(value) {
  return Number.isFinite(value) ? GROUPED.format(value) : NONE;
}

/** A number with so many significant digits, without an exponent where it reads well without. */
export function value(number, digits = 4) {
  if (Number.isNaN(number)) return "NaN";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  if (number === 0) return "0";
  const size = Math.abs(number);
  if (size >= 1e6 || size < 1e-3) return tidy(number.toExponential(digits - 1));
  if (size >= 10 ** digits) return GROUPED.format(number);
  return number.toPrecision(digits).replace("-", "−");
}

/** `3.00e-4` as `3e−4`. */
export function tidy(text) {
  const [mantissa, exponent] = text.split("e");
  return `${mantissa.replace(/\.?0+$/, "").replace("-", "−")}e${exponent.replace("+", "").replace("-", "−")}`;
}

/** Seconds as `m:ss` or `h:mm:ss`, or days and hours. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const whole = Math.floor(seconds); // as a clock does
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest.replace(/^0(?=\d:)/, "");
}

/** Bytes in the largest unit that leaves a number of at least 1, of a whole: `12.3 / 64 MB`. */
export function bytes(size, whole = null) {
  if (!Number.isFinite(size)) return NONE;
  const top = whole ?? size;
  let unit = 0;
  while (top >= 999.5 * 1000 ** unit && unit < UNITS.length - 1) unit += 1;
  const written = (number) => {
    const scaled = number / 1000 ** unit;
    if (number > 0 && unit && scaled < 0.05) return "<0.1";
    return unit === 0 || scaled >= 99.95 ? GROUPED.format(scaled) : String(Number(scaled.toFixed(1)));
  };
  return `${written(size)}${whole ? ` / ${written(whole)}` : ""} ${UNITS[unit]}`;
}
