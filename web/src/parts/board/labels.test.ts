import { expect, test } from 'vitest';
import { labels, meet, type Labelled } from './labels';

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
