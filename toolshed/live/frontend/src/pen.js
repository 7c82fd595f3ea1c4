// Draws lines onto a chart's canvas: the spread of what was thinned, the line, and points where they are few.
import { lowerBound } from "./frames.js";

const SPARSE = 14; // CSS pixels between points from which on each one gets a dot

/** The part of a line that shows, with one point more on both sides, as a pair of indices. */
function visible(line, start, stop) {
  const from = Math.max(lowerBound(line.steps, start) - 1, 0);
  const to = Math.min(lowerBound(line.steps, stop + 1) + 1, line.steps.length);
  return [from, to];
}

/**
 * Draws one line.
 *
 * @param u the chart
 * @param line as `decode` gives it; `smooth` holds float32[n] where the line is smoothed
 * @param look `{color, faint}`
 */
export function drawLine(u, line, { color, faint }) {
  const { ctx } = u;
  const { min, max } = u.scales.x;
  const [from, to] = visible(line, min, max);
  if (from >= to) return;
  const ratio = devicePixelRatio || 1;
  const x = new Float64Array(to - from);
  for (let i = from; i < to; i += 1) x[i - from] = u.valToPos(line.steps[i], "x", true);
  const bottom = u.bbox.top + u.bbox.height + 4 * ratio;
  const y = (value) => {
    const at = u.valToPos(value, "y", true);
    return Number.isFinite(at) ? Math.min(at, 1e6) : bottom; // nothing at or below 0 has a place on a log scale
  };
  const raw = faint ? 0.3 : line.smooth ? 0.35 : 1;
  ctx.strokeStyle = color;
  ctx.fillStyle = color;
  ctx.lineJoin = "round";
  if (!line.flat) {
    ctx.globalAlpha = 0.3 * raw;
    ctx.fill(band(line, x, y, from, to, 0.5 * ratio));
  }
  const dots = isSparse(u, x, ratio) && !faint;
  ctx.globalAlpha = raw;
  ctx.lineWidth = (line.smooth || faint ? 1 : 1.5) * ratio;
  ctx.stroke(path(x, line.mean, y, from, to));
  if (dots) dot(ctx, x, line.mean, y, from, to, (line.smooth ? 1.6 : 2.4) * ratio);
  if (line.smooth && !faint) {
    ctx.globalAlpha = 1;
    ctx.lineWidth = 2 * ratio;
    ctx.stroke(path(x, line.smooth, y, from, to));
  }
  ctx.globalAlpha = 1;
}

/** Whether points lie far enough apart to be drawn as such. */
function isSparse(u, x, ratio) {
  return x.length < 2 || (x[x.length - 1] - x[0]) / (x.length - 1) > SPARSE * ratio;
}

function path(x, values, y, from, to) {
  const out = new Path2D();
  for (let i = from; i < to; i += 1) {
    if (i === from) out.moveTo(x[0], y(values[i]));
    else out.lineTo(x[i - from], y(values[i]));
  }
  return out;
}

/** The area between the smallest and the largest value of every bucket, at least two `thin` high. */
function band(line, x, y, from, to, thin) {
  const out = new Path2D();
  for (let i = from; i < to; i += 1) {
    const at = y(line.high[i]) - thin;
    if (i === from) out.moveTo(x[0], at);
    else out.lineTo(x[i - from], at);
  }
  for (let i = to - 1; i >= from; i -= 1) out.lineTo(x[i - from], y(line.low[i]) + thin);
  out.closePath();
  return out;
}

function dot(ctx, x, values, y, from, to, radius) {
  const out = new Path2D();
  for (let i = from; i < to; i += 1) {
    const at = y(values[i]);
    out.moveTo(x[i - from] + radius, at);
    out.arc(x[i - from], at, radius, 0, 2 * Math.PI);
  }
  ctx.fill(out);
}

/**
 * The smallest and largest value that show, over all lines: `[low, high, positive]`.
 *
 * `positive` is the smallest one above zero. All are infinite where nothing shows.
 */
export function extent(lines, start, stop) {
  let low = Infinity;
  let high = -Infinity;
  let positive = Infinity;
  for (const line of lines) {
    const [from, to] = visible(line, start, stop);
    for (let i = from; i < to; i += 1) {
      if (line.steps[i] < start || line.steps[i] > stop) continue;
      if (line.low[i] < low) low = line.low[i];
      if (line.high[i] > high) high = line.high[i];
      if (line.low[i] > 0 && line.low[i] < positive) positive = line.low[i];
      else if (line.high[i] > 0 && line.high[i] < positive) positive = line.high[i];
    }
  }
  return [low, high, positive];
}
