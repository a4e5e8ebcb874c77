import { expect, test } from 'vitest';
import type { Range } from './characters';
import { segments } from './segments';

test('overlapping ranges become stretches that know all that lies over them', () => {
  const ranges: Range[] = [
    [0, 10],
    [4, 14],
    [6, 8],
    [20, 30],
  ];
  expect(segments(2, 24, ranges)).toEqual([
    { start: 2, end: 4, over: [0] },
    { start: 4, end: 6, over: [0, 1] },
    { start: 6, end: 8, over: [0, 1, 2] },
    { start: 8, end: 10, over: [0, 1] },
    { start: 10, end: 14, over: [1] },
    { start: 14, end: 20, over: [] },
    { start: 20, end: 24, over: [3] },
  ]);
});

test('the stretches cover everything once; empty ranges and none do no harm', () => {
  const ranges: Range[] = Array.from({ length: 40 }, (_, n) => [(n * 7) % 90, ((n * 7) % 90) + (n % 13)]);
  const made = segments(0, 100, ranges);
  expect(made[0]?.start).toBe(0);
  expect(made.at(-1)?.end).toBe(100);
  made.slice(1).forEach((one, place) => expect(one.start).toBe(made[place]?.end));
  for (const { start, end, over } of made)
    expect(over).toEqual(ranges.flatMap(([from, to], n) => (from < to && from <= start && end <= to ? [n] : [])));
  expect(segments(0, 0, [])).toEqual([]);
  expect(segments(0, 3, [])).toEqual([{ start: 0, end: 3, over: [] }]);
});
