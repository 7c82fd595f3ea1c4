// Marks: what happened to the run, as small shapes at the top of every panel; shape and words, not colour, tell.

const OCTAGON = [[-0.45, -1.1], [0.45, -1.1], [1.1, -0.45], [1.1, 0.45], [0.45, 1.1], [-0.45, 1.1], [-1.1, 0.45], [-1.1, -0.45]];

/** The kinds that are marked, with a shape (in a box from -1 to 1), whether a line goes down, and the row. */
const KINDS = {
  edited: { shape: [[-1, 1], [1, 1], [0, -0.9]], line: true },
  model_edited: { shape: [[-1, -1], [1, -1], [1, 1], [-1, 1]], line: true },
  branched: { shape: [[-0.8, -1], [0.9, 0], [-0.8, 1]], line: true },
  saved: { shape: [[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]], line: false },
  interrupted: { strokes: [[-0.6, -1, -0.6, 1], [0.6, -1, 0.6, 1]], line: false },
  error: { shape: OCTAGON, alarm: true, line: true },
  nonfinite: { strokes: [[-0.9, -0.9, 0.9, 0.9], [-0.9, 0.9, 0.9, -0.9]], alarm: true, line: false, row: 1 },
};
const SIZE = 4; // CSS pixels from the middle of a mark to its edge
const REACH = 7; // CSS pixels from which the pointer finds a mark

/** The marks of one panel, by step: those of the run, and the values of its lines that are not finite. */
export function marksOf(panel, marks, lines) {
  const names = new Set(panel.lines.map(({ id }) => id));
  const out = marks.filter((mark) => KINDS[mark.kind] && (mark.kind !== "nonfinite" || names.has(mark.id)));
  const known = new Set(out.filter(({ kind }) => kind === "nonfinite").map(({ id, step }) => `${id} ${step}`));
  for (const line of lines) {
    for (const step of line.bad) {
      if (known.has(`${line.id} ${step}`)) continue;
      out.push({ kind: "nonfinite", step, text: `${line.label} is not finite`, faint: !line.current });
    }
  }
  return out.sort((a, b) => a.step - b.step);
}

/** Draws marks at the top of a chart's plot. */
export function drawMarks(u, marks, theme) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio || 1;
  const size = SIZE * ratio;
  const last = {};
  for (const mark of marks) {
    const x = u.valToPos(mark.step, "x", true);
    if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
    if (x - last[mark.kind] < 3 * ratio) continue; // it would hide in the one before
    last[mark.kind] = x;
    const kind = KINDS[mark.kind];
    const top = bbox.top + (SIZE + 2 + 2.5 * SIZE * (kind.row ?? 0)) * ratio;
    ctx.strokeStyle = ctx.fillStyle = kind.alarm ? theme.alarm : theme.ink;
    ctx.globalAlpha = mark.faint ? 0.3 : 0.9;
    ctx.lineWidth = 1.6 * ratio;
    if (kind.shape) {
      ctx.beginPath();
      for (const [dx, dy] of kind.shape) ctx.lineTo(x + dx * size, top + dy * size);
      ctx.closePath();
      ctx.fill();
    }
    for (const [x0, y0, x1, y1] of kind.strokes ?? []) {
      ctx.beginPath();
      ctx.moveTo(x + x0 * size, top + y0 * size);
      ctx.lineTo(x + x1 * size, top + y1 * size);
      ctx.stroke();
    }
    if (kind.line) {
      ctx.globalAlpha *= 0.35;
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, top + size + 2 * ratio);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
    }
  }
  ctx.globalAlpha = 1;
}

/** The marks near a place on the x axis, in CSS pixels of the plot. */
export function marksNear(u, marks, left) {
  return marks.filter(({ step }) => Math.abs(u.valToPos(step, "x") - left) <= REACH);
}
