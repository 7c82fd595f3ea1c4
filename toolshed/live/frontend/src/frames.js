// What the kernel packed (toolshed/live/frames.py says how), as arrays.

const HEADER_AT = 8;

/** The header of any frame, and what takes the next `count` values of its arrays; null of an empty one. */
function open(view) {
  if (!view || view.byteLength < HEADER_AT) return null;
  const length = view.getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + HEADER_AT, length));
  // A copy, so that the arrays lie where their types want them.
  const body = view.buffer.slice(view.byteOffset + HEADER_AT + length, view.byteOffset + view.byteLength);
  let at = 0;
  const take = (type, count) => {
    const values = new type(body, at, count);
    at += 4 * count;
    return values;
  };
  return { header: JSON.parse(text), take };
}

/** The maps of what is watched: each gets `steps` (float64) and `values` (float32, row after row). */
export function decodeMaps(view) {
  const { header, take } = open(view) ?? { header: { maps: [], left_out: 0 } };
  const maps = header.maps.map((map) => {
    const steps = Float64Array.from(take(Uint32Array, map.columns), (offset) => map.first + offset);
    return { ...map, steps, values: take(Float32Array, map.columns * map.rows.length) };
  });
  return { ...header, maps };
}

/**
 * A frame: its header, and its lines with their values.
 *
 * Each line gets `steps` (float64), `low`, `high`, `mean` (float32; the same array where every bucket holds
 * one value) and `bad` (float64: steps whose value is not finite).
 */
export function decode(view) {
  const opened = open(view);
  if (!opened) return null;
  const { header, take } = opened;
  header.lines = header.lines.map((line) => {
    const { n, first, second, every, flat, bad } = line;
    const steps = every
      ? Float64Array.from({ length: n }, (_, i) => (i ? second + (i - 1) * every : first))
      : Float64Array.from(take(Uint32Array, n), (offset) => first + offset);
    const low = take(Float32Array, n);
    const high = flat ? low : take(Float32Array, n);
    const mean = flat ? low : take(Float32Array, n);
    const marks = Float64Array.from(take(Uint32Array, bad), (offset) => line.origin + offset);
    return { ...line, steps, low, high, mean, bad: marks };
  });
  return header;
}

/** The first index whose value is at least `value`, in an ascending array. */
export function lowerBound(values, value) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index of the value nearest to `value`, or -1 where there is none. */
export function nearest(values, value) {
  if (!values.length) return -1;
  const right = lowerBound(values, value);
  if (right === 0) return 0;
  if (right === values.length) return right - 1;
  return value - values[right - 1] <= values[right] - value ? right - 1 : right;
}

/** A part of a line with one value more at each end, which the whole line has there. */
export function join(part, whole) {
  const { steps } = part;
  if (!steps.length) return whole;
  const left = lowerBound(whole.steps, steps[0]) - 1;
  const right = lowerBound(whole.steps, steps[steps.length - 1] + 1);
  const join = (name) => {
    const values = [...(left >= 0 ? [whole[name][left]] : []), ...part[name], ...whole[name].slice(right, right + 1)];
    return Float64Array.from(values);
  };
  const [low, high, mean] = ["low", "high", "mean"].map(join);
  return { ...part, steps: join("steps"), low, high, mean, flat: part.flat && whole.flat };
}
