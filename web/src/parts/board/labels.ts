// Labels beside points so that none covers another, a point or an interval: each in turn takes the
// cheapest free place, those in the thick of it first.

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

const GAP = 9; // pixels from a point to its label: the least
const REACH = 240;
const CROWD = 60; // pixels within which points crowd each other
const LINE = 25; // price of standing on an interval
const TAKEN = 1000; // price of standing on what must be read
const OUTSIDE = 5000; // price of being cut off

export const meet = (a: Box, b: Box): boolean =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

const within = (a: Box, b: Box): boolean =>
  b.left <= a.left && a.right <= b.right && b.top <= a.top && a.bottom <= b.bottom;

/** A place for each point's label inside the frame, in the points' order. */
export function labels(
  points: Labelled[],
  frame: Box,
  widthOf: (text: string) => number,
  height = 15,
): Label[] {
  const taken: Box[] = points.map((p) => around(p, 6));
  const lines = points.map((p) => ({ left: p.x - 2, right: p.x + 2, top: p.top, bottom: p.bottom }));
  const crowd = points.map(
    (p) => points.filter((o) => (o.x - p.x) ** 2 + (o.y - p.y) ** 2 < CROWD ** 2).length,
  );
  const order = points.map((_, n) => n);
  order.sort((a, b) => (crowd[b] as number) - (crowd[a] as number));
  const made: Label[] = [];
  for (const n of order) {
    const point = points[n] as Labelled;
    const box = cheapest(point, widthOf(point.text), height, taken, lines, frame);
    taken.push(box);
    made[n] = { ...box, leader: leader(point, box) };
  }
  return made;
}

function around(point: Labelled, reach: number): Box {
  const { x, y } = point;
  return { left: x - reach, right: x + reach, top: y - reach, bottom: y + reach };
}

function cheapest(
  point: Labelled,
  width: number,
  height: number,
  taken: Box[],
  lines: Box[],
  frame: Box,
): Box {
  let [best, least] = [around(point, 0), Infinity];
  for (let gap = GAP; gap < REACH; gap += GAP / 2)
    for (let turn = 0; turn < 16; turn++) {
      const [right, down] = [Math.cos((turn * Math.PI) / 8), Math.sin((turn * Math.PI) / 8)];
      const left = point.x + gap * right - (width * (1 - right)) / 2;
      const top = point.y + gap * down - (height * (1 - down)) / 2;
      const box = { left, top, right: left + width, bottom: top + height };
      let price = gap + (within(box, frame) ? 0 : OUTSIDE);
      for (const line of lines) if (meet(box, line)) price += LINE;
      for (const other of taken) if (meet(box, other)) price += TAKEN;
      if (price < least) [best, least] = [box, price];
    }
  return best;
}

function leader(point: Labelled, box: Box): [number, number] | null {
  const x = Math.min(Math.max(point.x, box.left), box.right);
  const y = Math.min(Math.max(point.y, box.top), box.bottom);
  return Math.hypot(x - point.x, y - point.y) < GAP * 1.8 ? null : [x, y];
}
