// What happened during a run, drawn on its charts: a line and a sign, told apart by shape. The legend beside the charts shows the same signs.

const SIZE = 9;
// Signs of one kind stand no closer than this, in CSS pixels; where they would, some are left out.
const APART = 14;
const LOOK = {
  checkpoint: { colour: "--ink-3", dash: [2, 4], sign: bookmark },
  pause: { colour: "--warn", dash: [6, 4], sign: bars },
  resume: { colour: "--ok", dash: [6, 4], sign: triangle },
  nonfinite: { colour: "--err", dash: [], sign: cross },
};

function bookmark(ctx, x, y, size) {
  ctx.moveTo(x - size * 0.35, y);
  ctx.lineTo(x + size * 0.35, y);
  ctx.lineTo(x + size * 0.35, y + size);
  ctx.lineTo(x, y + size * 0.65);
  ctx.lineTo(x - size * 0.35, y + size);
  ctx.closePath();
}

function bars(ctx, x, y, size) {
  ctx.rect(x - size * 0.4, y, size * 0.28, size);
  ctx.rect(x + size * 0.12, y, size * 0.28, size);
}

function triangle(ctx, x, y, size) {
  ctx.moveTo(x - size * 0.35, y);
  ctx.lineTo(x + size * 0.5, y + size / 2);
  ctx.lineTo(x - size * 0.35, y + size);
  ctx.closePath();
}

function cross(ctx, x, y, size) {
  const arm = size * 0.4;
  const middle = y + size / 2;
  for (const [from, to] of [[-arm, arm], [arm, -arm]]) {
    ctx.moveTo(x - arm, middle + from);
    ctx.lineTo(x + arm, middle + to);
  }
}

/** Of ascending places those that lie `gap` apart, always with the last. */
function thinned(places, gap) {
  const kept = [];
  for (const x of [...places].reverse()) if (!kept.length || kept.at(-1) - x >= gap) kept.push(x);
  return kept;
}

/** Draws `marks` (`{kind, x}`, x on the axis) on a plot of uPlot; `colour(name)` gives the colour behind a custom property. */
export function drawMarks(plot, marks, colour) {
  const { ctx, bbox } = plot;
  const scale = devicePixelRatio;
  ctx.save();
  for (const [kind, look] of Object.entries(LOOK)) {
    const places = marks.filter((mark) => mark.kind === kind).map((mark) => plot.valToPos(mark.x, "x", true));
    const inside = thinned(places.filter((x) => x >= bbox.left && x <= bbox.left + bbox.width), APART * scale);
    if (!inside.length) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(look.colour);
    ctx.lineWidth = scale;
    ctx.setLineDash(look.dash.map((length) => length * scale));
    ctx.beginPath();
    for (const x of inside) {
      ctx.moveTo(x, bbox.top + (SIZE + 2) * scale);
      ctx.lineTo(x, bbox.top + bbox.height);
    }
    // Checkpoints are many: their lines stay in the background, their signs tell where they are.
    ctx.globalAlpha = kind === "checkpoint" ? 0.35 : 0.8;
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.setLineDash([]);
    ctx.lineWidth = 2 * scale;
    ctx.beginPath();
    for (const x of inside) look.sign(ctx, x, bbox.top, SIZE * scale);
    if (kind === "nonfinite") ctx.stroke();
    else ctx.fill();
  }
  ctx.restore();
}

/** Writes `text` upon the horizontal line at `value`, at its `end` (left or right): above it, or below where there is no room above. */
export function drawName(plot, value, text, colour, end) {
  const { ctx, bbox } = plot;
  const scale = devicePixelRatio;
  const y = plot.valToPos(value, "y", true);
  if (y < bbox.top || y > bbox.top + bbox.height) return;
  const above = y - bbox.top > (SIZE + 16) * scale;
  ctx.save();
  ctx.font = `${11 * scale}px ${getComputedStyle(plot.root).fontFamily}`;
  ctx.fillStyle = colour;
  ctx.textAlign = end;
  ctx.textBaseline = above ? "bottom" : "top";
  ctx.fillText(text, end === "left" ? bbox.left + 4 * scale : bbox.left + bbox.width - 4 * scale, y + (above ? -3 : 3) * scale);
  ctx.restore();
}
