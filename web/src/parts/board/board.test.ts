import { expect, test } from 'vitest';
import { best, better, bytes, costText, read, sorted } from './board';

const figure = (value: number): { value: number; low: number; high: number } => ({
  value,
  low: value - 0.1,
  high: value + 0.1,
});
const board = read({
  preset: 'p',
  columns: { LDS: 'higher', error: 'of it; lower is better', slope: 'of it; 1 is best' },
  rows: [
    {
      name: 'a',
      title: 'A',
      given: [],
      parameters: {},
      figures: { LDS: figure(0.2), error: figure(3), slope: figure(1.4) },
      cost: { seconds: 2, memory: 2048, disk: 0 },
      trainings: 0.5,
    },
    {
      name: 'b',
      title: 'B',
      given: ['recipe'],
      parameters: {},
      figures: { LDS: figure(0.7), error: figure(1), slope: figure(0.9) },
      cost: { seconds: 9, memory: 1, disk: 1 },
      trainings: null,
    },
    { name: 'c', title: 'C', given: [], figures: { LDS: 'failed' }, cost: null },
  ],
  findings: [{ claim: 'x', holds: null, figures: 'y' }],
});

test('the best of a column is as its sentence says', () => {
  expect(better('of it; lower is better')).toBe('lower');
  const told = new Map(board.columns);
  expect(best(board.rows, 'LDS', told.get('LDS') ?? '')).toBe(0.7);
  expect(best(board.rows, 'error', told.get('error') ?? '')).toBe(1);
  expect(best(board.rows, 'slope', told.get('slope') ?? '')).toBe(0.9);
});

test('rows sort by any column, those without a figure last either way', () => {
  const names = (column: string, down: boolean): string =>
    sorted(board.rows, column, down)
      .map((row) => row.name)
      .join('');
  expect(names('LDS', true)).toBe('bac');
  expect(names('LDS', false)).toBe('abc');
  expect(names('seconds', true)).toBe('bac');
  expect(names('method', true)).toBe('cba');
});

test('what a file leaves out is missing, not zero', () => {
  expect(board.rows[2]?.figures['LDS']).toBe('failed');
  expect(board.rows[2]?.figures['error']).toBe('not measured');
  expect(board.rows[1]?.costs.trainings).toBeNull();
  expect(costText('trainings', null)).toBe('–');
  expect(read({}).rows).toEqual([]);
  expect(board.findings[0]?.holds).toBeNull();
  expect(bytes(2048)).toBe('2 KiB');
});
