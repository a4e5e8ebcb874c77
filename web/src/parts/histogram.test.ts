import { expect, test } from 'vitest';
import { binOf, chart } from './histogram';

const distribution = { edges: [-1, 0, 1, 2], counts: [100, 0, 4] };

test('heights are square roots of counts, and a single example is seen', () => {
  const { bars, x, beyond } = chart(distribution, [], 300, 100);
  expect(bars.map((one) => one.height)).toEqual([100, 0, 20]);
  expect(bars[1]).toMatchObject({ x: 100, width: 100 });
  expect(x(2)).toBe(300);
  expect(beyond).toBe(0);
  expect(chart({ edges: [0, 1, 2], counts: [1, 1e6] }, [], 10, 100).bars[0]?.height).toBe(2);
});

test('other scores have room, but those far off do not squeeze the bars', () => {
  const made = chart(distribution, [3.5, 1e9, 4e8], 300, 100);
  expect([made.low, made.high, made.beyond]).toEqual([-1, 3.5, 2]);
});

test('nothing, one example and equal scores are drawn, too', () => {
  expect(chart({ edges: [], counts: [] }, [], 300, 100).bars).toEqual([]);
  expect(chart({ edges: [0.5, 1.5], counts: [1] }, [], 300, 100).bars[0]).toMatchObject({ x: 0, width: 300, height: 100 });
  expect(chart({ edges: [1, 1], counts: [3] }, [], 300, 100).bars[0]?.x).toBe(0);
});

test('a score is in the bar whose lower edge it reaches; the last takes its upper edge', () => {
  const { edges } = distribution;
  expect([-1, -0.5, 0, 1.99, 2].map((score) => binOf(score, edges))).toEqual([0, 0, 1, 2, 2]);
  expect([-1.1, 2.1, null, NaN].map((score) => binOf(score, edges))).toEqual([null, null, null, null]);
  expect(binOf(2.0000001, edges)).toBe(2); // rounded on its way
  expect(binOf(1, [])).toBeNull();
});
