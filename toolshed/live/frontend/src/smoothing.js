// An exponential mean over steps: the same curve at every zoom, however the points were thinned.

/** What the slider offers: the steps over which is smoothed; 0 is off. */
export const NOTCHES = [0, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];

/**
 * Smooths a line's means.
 *
 * The weight of a value falls by e in `span` steps. The sum of all weights is kept beside the sum of the
 * values, so that the first values do not count more than they should.
 *
 * @param steps ascending, float64[n]
 * @param values float32[n], finite
 * @param span steps, more than 0
 * @param before what an earlier part of the line left behind, `{sum, weight, step}`, or null
 * @returns `{values: float32[n], sums: float64[n], weights: float64[n]}`
 */
export function smooth(steps, values, span, before = null) {
  const n = steps.length;
  const out = { values: new Float32Array(n), sums: new Float64Array(n), weights: new Float64Array(n) };
  let { sum, weight, step } = before ?? { sum: 0, weight: 0, step: n ? steps[0] - (n > 1 ? steps[1] - steps[0] : 1) : 0 };
  for (let i = 0; i < n; i += 1) {
    const kept = Math.exp(-Math.max(steps[i] - step, 0) / span);
    sum = kept * sum + (1 - kept) * values[i];
    weight = kept * weight + (1 - kept);
    step = steps[i];
    out.values[i] = weight > 0 ? sum / weight : values[i];
    out.sums[i] = sum;
    out.weights[i] = weight;
  }
  return out;
}

/** What a smoothed line had gathered just before a step: the `before` of the part that begins there. */
export function gatheredBefore(steps, smoothed, index) {
  if (index <= 0) return null;
  return { sum: smoothed.sums[index - 1], weight: smoothed.weights[index - 1], step: steps[index - 1] };
}
