// Ticks: where they lie on a logarithmic axis, and what is written at them.
import { tidy } from "./format.js";

/**
 * A number on an axis, in as few characters as tell it from its neighbours.
 *
 * @param step how far the ticks lie apart
 * @param top the largest of them, so that all are written alike
 */
export function tick(number, step, top) {
  if (number === 0) return "0";
  if (top < 0.01 || top >= 1e9) {
    const exponent = Math.floor(Math.log10(Math.abs(number)) + 1e-9);
    return tidy(number.toExponential(Math.min(Math.max(decimals(step) + exponent, 0), 12)));
  }
  const [scale, unit] = top >= 1e6 ? [1e6, "M"] : top >= 1e4 ? [1e3, "k"] : [1, ""];
  return (number / scale).toFixed(decimals(step / scale)).replace("-", "−") + unit;
}

/** How many digits after the point a number has. */
function decimals(number) {
  let digits = Math.max(-Math.floor(Math.log10(number) + 1e-9), 0);
  while (digits < 15 && Math.abs(number * 10 ** digits - Math.round(number * 10 ** digits)) > 1e-6) digits += 1;
  return Math.min(digits, 15);
}

/** The texts of the ticks of a linear axis. */
export function texts(u, splits) {
  const top = Math.max(...splits.map(Math.abs));
  const gaps = splits.slice(1).map((at, i) => Math.abs(at - splits[i]));
  return splits.map((at) => tick(at, Math.min(...gaps, top || 1), top));
}

/** Ticks of a logarithmic axis: 1, 2 and 5 in each decade, only decades where there are many, or linear ones. */
export function logTicks(low, high) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const every = Math.ceil((last - first) / 6);
  const digits = last - first <= 3 ? [1, 2, 5] : [1];
  const all = [];
  for (let power = first; power <= last; power += every) all.push(...digits.map((digit) => digit * 10 ** power));
  const inside = all.filter((at) => at >= low && at <= high);
  if (inside.length >= 3) return inside;
  const rough = (high - low) / 4;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * size).find((one) => one >= rough);
  const linear = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) linear.push(i * step);
  return linear.filter((at) => at > 0);
}

/** The texts of the ticks of a logarithmic axis. */
export function logTexts(u, splits) {
  return splits.map((at) => {
    const size = Math.abs(at);
    if (size < 1e-3 || size >= 1e5) return tidy(at.toExponential(3));
    return String(Number(at.toPrecision(4)));
  });
}
