import { expect, test } from 'vitest';
import { crosses, labels, meet, type Labelled } from './labels';

const frame = { left: 0, top: 0, right: 800, bottom: 420 };
const width = (text: string): number => text.length * 7;

test('labels cover neither each other nor a point', () => {
  // Nine methods of which six lie in one heap, as on the boards.
  const places = [
    [200, 100],
    [205, 108],
    [211, 97],
    [196, 112],
    [220, 104],
    [208, 120],
    [500, 200],
    [640, 30],
    [790, 300],
  ] as const;
  const points: Labelled[] = places.map(([x, y], n) => ({
    x,
    y,
    top: y - 20,
    bottom: y + 20,
    text: `Method number ${n}`,
  }));
  const found = labels(points, frame, width);
  expect(found).toHaveLength(points.length);
  found.forEach((one, n) => {
    expect(one.left).toBeGreaterThanOrEqual(frame.left);
    expect(one.right).toBeLessThanOrEqual(frame.right);
    for (const other of found.slice(n + 1)) expect(meet(one, other)).toBe(false);
    for (const { x, y } of points)
      expect(meet(one, { left: x - 4, right: x + 4, top: y - 4, bottom: y + 4 })).toBe(false);
  });
  expect(found.some((one) => one.leader)).toBe(true);
});

test('labels in a narrow heap keep apart from each other, from marks and from the lines to others', () => {
  // Methods of one board in a window of 390 pixels: costs within a few pixels of each other.
  const narrow = { left: 62, top: 14, right: 310, bottom: 472 };
  const places = [
    [148, 77, 'LESS'],
    [144, 81, 'K-FAC'],
    [151, 81, 'EK-FAC'],
    [181, 79, 'SOURCE'],
    [149, 138, 'TracInCP'],
    [104, 160, 'DataInf'],
    [73, 194, 'TRAK'],
    [115, 212, 'Dense (MiniLM)'],
    [67, 243, 'LoGra'],
    [73, 243, 'TrackStar'],
    [71, 278, 'GradDot'],
    [75, 278, 'GradCos'],
    [43 + 20, 322, 'Random'],
    [67, 352, 'RepSim'],
    [68, 330, 'Loss'],
    [240, 356, 'MAGIC'],
  ] as const;
  const points: Labelled[] = places.map(([x, y, text]) => ({ x, y, top: y - 40, bottom: y + 40, text }));
  const found = labels(points, narrow, width);
  found.forEach((one, n) => {
    const aired = { left: one.left - 1, right: one.right + 1, top: one.top - 1, bottom: one.bottom + 1 };
    found.forEach((other, m) => {
      if (m > n) expect(meet(aired, other), `${points[n]?.text} and ${points[m]?.text}`).toBe(false);
      const [point] = [points[m] as Labelled];
      if (m !== n && other.leader)
        expect(crosses([[point.x, point.y], other.leader], one), `${point.text} through ${points[n]?.text}`).toBe(false);
    });
    for (const { x, y, text } of points)
      expect(meet(one, { left: x - 7, right: x + 7, top: y - 7, bottom: y + 7 }), `${points[n]?.text} on ${text}`).toBe(false);
  });
});

test('labels of points in one row, longer than the points are apart, stay legible', () => {
  const places = [227, 273, 334, 412, 466, 496, 509, 582];
  const points: Labelled[] = places.map((x, n) => ({ x, y: 36, top: 36, bottom: 36, text: `cell no. ${n + 10} here` }));
  const found = labels(points, { left: 62, top: 14, right: 790, bottom: 412 }, () => 99);
  found.forEach((one, n) => {
    for (const other of found.slice(n + 1)) expect(meet(one, other)).toBe(false);
    for (const { x, y } of points) expect(meet(one, { left: x - 7, right: x + 7, top: y - 7, bottom: y + 7 })).toBe(false);
  });
});

test('a line passes through a box, beside it, or ends before it', () => {
  const box = { left: 10, right: 20, top: 10, bottom: 20 };
  expect(crosses([[0, 0], [30, 30]], box)).toBe(true);
  expect(crosses([[0, 15], [30, 15]], box)).toBe(true);
  expect(crosses([[0, 5], [30, 5]], box)).toBe(false);
  expect(crosses([[0, 0], [9, 9]], box)).toBe(false);
  expect(crosses([[15, 0], [15, 30]], box)).toBe(true);
});
