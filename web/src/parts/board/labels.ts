// Labels beside points so that none covers another, a point or an interval: each in turn takes the
// cheapest free place, those in the thick of it first. The lines that lead to labels count, too: a
// label is not read where one passes through it.

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Labelled {
  x: number;
  y: number;
  /** The interval, a vertical line. */
  top: number;
  bottom: number;
  text: string;
}

export interface Label extends Box {
  /** A line from the point to here, where the label stands away from it. */
  leader: [number, number] | null;
}

const GAP = 10; // pixels from a point to its label: the least
const REACH = 240;
const TURNS = 24; // directions that are tried
const CROWD = 60; // pixels within which points crowd each other
const AIR = 2; // pixels between a label and what else is to be read
const POINT = 8; // half the width of a point's mark
const LINE = 40; // price of standing on an interval
const TAKEN = 1000; // price of standing on what must be read
const PASSED = 300; // price of a line through what must be read
const OUTSIDE = 5000; // price of being cut off
const PASSES = 3;

export const meet = (a: Box, b: Box): boolean =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

const within = (a: Box, b: Box): boolean =>
  b.left <= a.left && a.right <= b.right && b.top <= a.top && a.bottom <= b.bottom;

const wider = ({ left, top, right, bottom }: Box, by: number): Box => ({
  left: left - by,
  top: top - by,
  right: right + by,
  bottom: bottom + by,
});

type Line = readonly [from: readonly [number, number], to: readonly [number, number]];

/** Whether a line passes through a box (Liang and Barsky). */
export function crosses([[x, y], [x2, y2]]: Line, box: Box): boolean {
  let [from, to] = [0, 1];
  for (const [step, room] of [
    [x - x2, x - box.left],
    [x2 - x, box.right - x],
    [y - y2, y - box.top],
    [y2 - y, box.bottom - y],
  ] as const) {
    if (step === 0 && room <= 0) return false;
    if (step < 0) from = Math.max(from, room / step);
    else if (step > 0) to = Math.min(to, room / step);
  }
  return from < to;
}

/** What is there already. */
interface Placed {
  marks: Box[];
  intervals: Box[];
  /** In the points' order; null = not placed yet. */
  labels: (Label | null)[];
}

/** A place for each point's label inside the frame, in the points' order. */
export function labels(
  points: Labelled[],
  frame: Box,
  widthOf: (text: string) => number,
  height = 15,
): Label[] {
  const placed: Placed = {
    marks: points.map(({ x, y }) => wider({ left: x, right: x, top: y, bottom: y }, POINT)),
    intervals: points.map((p) => ({ left: p.x - 2, right: p.x + 2, top: p.top, bottom: p.bottom })),
    labels: points.map(() => null),
  };
  const crowd = points.map(
    (p) => points.filter((o) => (o.x - p.x) ** 2 + (o.y - p.y) ** 2 < CROWD ** 2).length,
  );
  const order = points.map((_, n) => n);
  order.sort((a, b) => (crowd[b] as number) - (crowd[a] as number));
  const widths = points.map(({ text }) => widthOf(text));
  // Again for each, as the first ones did not know of the last ones.
  for (let pass = 0; pass < PASSES; pass++)
    for (const n of order) {
      placed.labels[n] = null;
      placed.labels[n] = cheapest(points, n, [widths[n] as number, height], placed, frame);
    }
  return placed.labels as Label[];
}

function cheapest(points: Labelled[], own: number, [width, height]: [number, number], placed: Placed, frame: Box): Label {
  const point = points[own] as Labelled;
  let best: Label = { ...(placed.marks[own] as Box), leader: null };
  let least = Infinity;
  for (let gap = GAP; gap < Math.min(REACH, least); gap += 5)
    for (let turn = 0; turn < TURNS; turn++) {
      const [right, down] = [Math.cos((turn * 2 * Math.PI) / TURNS), Math.sin((turn * 2 * Math.PI) / TURNS)];
      const left = point.x + gap * right - (width * (1 - right)) / 2;
      const top = point.y + gap * down - (height * (1 - down)) / 2;
      const box = { left, top, right: left + width, bottom: top + height };
      const label = { ...box, leader: leader(point, box) };
      const price = gap + (within(box, frame) ? 0 : OUTSIDE) + priceOf(label, points, own, placed);
      if (price < least) [best, least] = [label, price];
    }
  return best;
}

/** What a label there would cover or cross. */
function priceOf(label: Label, points: Labelled[], own: number, { marks, intervals, labels }: Placed): number {
  const lineOf = (n: number, one: Label): Line | null =>
    one.leader && [[(points[n] as Labelled).x, (points[n] as Labelled).y], one.leader];
  const line = lineOf(own, label);
  const aired = wider(label, AIR);
  let price = 0;
  marks.forEach((mark, n) => {
    if (meet(label, mark)) price += TAKEN;
    if (meet(label, intervals[n] as Box)) price += LINE;
    if (line && n !== own && crosses(line, mark)) price += PASSED;
    const other = labels[n];
    if (!other || n === own) return;
    const theirs = lineOf(n, other);
    if (meet(aired, other)) price += TAKEN;
    if (line && crosses(line, other)) price += PASSED;
    if (theirs && crosses(theirs, aired)) price += PASSED;
  });
  return price;
}

function leader(point: Labelled, box: Box): [number, number] | null {
  const x = Math.min(Math.max(point.x, box.left), box.right);
  const y = Math.min(Math.max(point.y, box.top), box.bottom);
  return Math.hypot(x - point.x, y - point.y) < GAP * 1.8 ? null : [x, y];
}
