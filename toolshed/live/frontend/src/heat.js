// Paints a heat map onto a canvas: names to the left, cells in colours, steps below.
import { tick } from "./ticks.js";
import { color } from "./palette.js";

const AXIS = 20; // CSS pixels below the cells
const GAP = 8; // between names and cells
const STEPS = Array.from({ length: 16 }, (_, i) => [1, 2, 5].map((digit) => digit * 10 ** i)).flat();
const STRIPES = 5; // CSS pixels from one to the next

/** How high a row is, in CSS pixels: many are lower. */
export function rowHeight(rows) {
  return rows <= 8 ? 20 : rows <= 20 ? 16 : 13;
}

/** Where things lie, in CSS pixels. */
export function layOut(map, width, measure, [start, stop]) {
  const names = map.rows.map((path) => path.slice(map.cut));
  const longest = Math.max(...names.map(measure), 0);
  const left = Math.ceil(Math.min(longest, 0.42 * width, 300)) + GAP;
  const high = rowHeight(map.rows.length);
  const plot = Math.max(width - left - 10, 20);
  const x = (step) => left + ((step - start) / (stop - start)) * plot;
  return { names, left, right: left + plot, high, bottom: high * map.rows.length, x, start, stop };
}

/** The height of a map, in CSS pixels. */
export function heightOf(rows) {
  return rowHeight(rows) * rows + AXIS;
}

/** Paints all of a map. */
export function paint(ctx, map, place, scale, theme, font) {
  const ratio = devicePixelRatio || 1;
  const { names, left, right, high, bottom } = place;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, right + 40, bottom + AXIS);
  ctx.font = font;
  ctx.textBaseline = "middle";
  ctx.fillStyle = theme.shade(0.8);
  ctx.textAlign = "right";
  shortened(ctx, names, left - GAP).forEach((name, i) => ctx.fillText(name, left - GAP, (i + 0.5) * high));
  ctx.fillStyle = theme.shade(0.05);
  ctx.fillRect(left, 0, right - left, bottom);
  paintCells(ctx, map, place, scale, theme, ratio);
  paintAxis(ctx, place, theme);
}

function paintCells(ctx, map, { left, right, high, x }, scale, theme, ratio) {
  const snap = (at) => Math.round(Math.min(Math.max(at, left), right) * ratio) / ratio;
  const edges = Array.from(map.steps, (step) => snap(x(step)));
  edges.push(snap(x((map.steps.at(-1) ?? 0) + map.every)));
  const bad = new Path2D();
  const none = new Path2D();
  map.rows.forEach((_, row) => {
    const top = Math.round(row * high * ratio) / ratio;
    const tall = Math.round((row + 1) * high * ratio) / ratio - top - 1 / ratio;
    for (let column = 0; column < map.columns; column += 1) {
      const wide = Math.max(edges[column + 1] - edges[column], edges[column] < right ? 1 / ratio : 0);
      const value = map.values[row * map.columns + column];
      if (!wide) continue;
      if (!Number.isFinite(value)) {
        bad.rect(edges[column], top, wide, tall);
        continue;
      }
      if (value === 0) {
        none.rect(edges[column], top + Math.floor(tall / 2), wide, 1);
        continue;
      }
      ctx.fillStyle = color(shareOf(value, scale));
      ctx.fillRect(edges[column], top, wide, tall);
    }
  });
  ctx.fillStyle = theme.shade(0.6);
  ctx.fill(none); // zeros have no place on the scale: a thin line
  paintBad(ctx, bad, left, right, high * map.rows.length, theme);
}

/** What is not finite: red with white stripes, which no colour of the scale is. */
export function paintBad(ctx, where, left, right, bottom, theme) {
  ctx.save();
  ctx.fillStyle = theme.bad;
  ctx.fill(where);
  ctx.clip(where);
  ctx.strokeStyle = "#fff";
  ctx.lineWidth = 1.4;
  ctx.beginPath();
  for (let at = left - bottom; at < right; at += STRIPES) {
    ctx.moveTo(at, bottom);
    ctx.lineTo(at + bottom, 0);
  }
  ctx.stroke();
  ctx.restore();
}

function paintAxis(ctx, { left, right, bottom, start, stop, x }, theme) {
  const most = Math.max(Math.floor((right - left) / 64), 2);
  const few = (step) => Math.floor(stop / step) - Math.ceil(start / step) + 1 <= most;
  const step = STEPS.find(few) ?? stop;
  ctx.textAlign = "center";
  ctx.fillStyle = theme.shade(0.75);
  ctx.strokeStyle = theme.shade(0.25);
  ctx.lineWidth = 1;
  for (let at = Math.ceil(start / step) * step; at <= stop; at += step) {
    const place = Math.round(x(at)) + 0.5;
    ctx.beginPath();
    ctx.moveTo(place, bottom);
    ctx.lineTo(place, bottom + 4);
    ctx.stroke();
    ctx.fillText(tick(at, step, Math.abs(stop)), Math.min(place, right - 4), bottom + 13);
  }
}

/** Names that fit. What is left out is where that leaves the most of them apart: in the middle, at best. */
function shortened(ctx, names, room) {
  const ways = [0.45, 0.65, 0.8, 0.25, 0].map((share) => names.map((name) => fitted(ctx, name, room, share)));
  const apart = ways.map((way) => new Set(way).size);
  return ways[apart.indexOf(Math.max(...apart))];
}

/** A name that fits, with a share of what is kept at its beginning and the rest at its end. */
function fitted(ctx, name, room, share) {
  if (ctx.measureText(name).width <= room) return name;
  const cut = (kept) => {
    const head = Math.round(share * kept);
    return `${name.slice(0, head)}…${name.slice(name.length - kept + head)}`;
  };
  let kept = name.length - 1;
  while (kept > 1 && ctx.measureText(cut(kept)).width > room) kept -= 1;
  return cut(kept);
}

/** A value's share of the scale. */
export function shareOf(value, { low, high }) {
  return (Math.log10(Math.abs(value)) - low) / (high - low);
}
