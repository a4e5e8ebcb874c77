import { expect, test } from 'vitest';
import type { MethodInfo } from '../../types';
import { quickFirst } from './quick';

const method = (name: string, costs: string, missing: string | null = null): MethodInfo => ({
  name,
  title: name,
  unit: 'u',
  additive: true,
  influence: true,
  needs: '',
  costs,
  missing,
});

test('what only scans stands first, what cannot be asked not at all', () => {
  const found = quickFirst([
    method('ekfac', 'two passes and eigenvectors for its curvature, once; a pass for each group of queries'),
    method('graddot', 'a scan'),
    method('trak', 'a factorisation once, a scan', 'needs margins'),
    method('repsim', 'the model over the corpus once, without gradients; a scan'),
    method('logra', 'a factorisation once, a scan'),
    method('magic', 'a few trainings for the first query'),
  ]);
  expect(found.quick.map((one) => one.name)).toEqual(['graddot', 'logra']);
  expect(found.slow.map((one) => one.name)).toEqual(['ekfac', 'repsim', 'magic']);
});
