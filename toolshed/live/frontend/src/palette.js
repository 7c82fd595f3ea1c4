// The colours of heat maps: cividis, from dark blue to yellow, which all eyes put in the same order.

// Nuñez, Anderton, Renslow: Optimizing colormaps with consideration for color vision deficiency (2018); every eighth part.
const CIVIDIS = [
  [0, 34, 78],
  [18, 53, 112],
  [59, 73, 108],
  [87, 93, 109],
  [112, 113, 115],
  [138, 134, 120],
  [165, 156, 116],
  [195, 179, 105],
  [254, 232, 56],
];
const SHADES = 256;

export const COLORS = Array.from({ length: SHADES }, (_, i) => {
  const at = (i / (SHADES - 1)) * (CIVIDIS.length - 1);
  const left = Math.min(Math.floor(at), CIVIDIS.length - 2);
  const mixed = CIVIDIS[left].map((part, j) => Math.round(part + (at - left) * (CIVIDIS[left + 1][j] - part)));
  return `rgb(${mixed.join(",")})`;
});

/** The colour of a share of the scale, from 0 to 1. */
export function color(share) {
  return COLORS[Math.round(Math.min(Math.max(share, 0), 1) * (SHADES - 1))];
}

/**
 * The scale of some values: log10 of the least and the largest magnitude, in halves of a decade, so that it
 * does not change with each value; and whether there are zeros and values that are not finite.
 */
export function scaleOf(values) {
  let low = Infinity;
  let high = 0;
  let zeros = false;
  let bad = false;
  for (const value of values) {
    const size = Math.abs(value);
    if (size === 0) zeros = true;
    else if (!Number.isFinite(size)) bad = true;
    else {
      if (size < low) low = size;
      if (size > high) high = size;
    }
  }
  if (!high) return { low: -1, high: 0, zeros, bad, empty: true };
  const bottom = Math.floor(2 * Math.log10(low) + 1e-9) / 2;
  return { low: bottom, high: Math.max(Math.ceil(2 * Math.log10(high) - 1e-9) / 2, bottom + 0.5), zeros, bad, empty: false };
}
