import { expect, test } from 'vitest';
import type { Evidence } from '../types';
import { percentileOf } from './words';

test('how many examples score lower is never all of them', () => {
  const said = (percentile: number | null): string => percentileOf({ percentile } as Evidence);
  expect(said(100 * (1 - 1 / 89_299))).toBe('above over 99.99 % of examples');
  expect(said(99.95)).toBe('above 99.95 % of examples');
  expect(said(0.001)).toBe('under 0.01 % of examples are lower');
  expect(said(0)).toBe('lowest of all examples');
  expect(said(null)).toBe('not scored here');
});
