import { flushSync, mount, unmount } from 'svelte';
import { expect, test } from 'vitest';
import type { Board } from '../../types';
import { read } from './board';
import { colourOf, gridOf, heats } from './grid';
import Heat from './Heat.svelte';

const one = (value: number): Record<string, number> => ({ value, low: value - 0.1, high: value + 0.1 });
const file = {
  preset: 'scaling',
  columns: { MRR: 'of it; higher is better', change: 'of it', gone: 'never measured' },
  rows: [
    { name: 'small, 4', figures: { MRR: one(0.25), change: one(-0.5) } },
    { name: 'small, 8', figures: { MRR: one(0.5), change: one(0) } },
    { name: 'large, 4', figures: { MRR: one(1), change: one(2) } },
  ],
  extra: {
    grid: {
      rows: ['small', 'large'],
      columns: ['4 passes', '8 passes'],
      cells: [['small, 4', 'small, 8'], ['large, 4', 'large, 8']],
      figures: ['MRR', 'change', 'gone'],
    },
  },
} as Board;
const board = read(file);
const grid = gridOf(file['extra']);
const alpha = (colour: string): number => Number(/([\d.]+)\)$/.exec(colour)?.[1]);

test('a grid in a file is read with care', () => {
  expect(grid?.cells[1]).toEqual(['large, 4', 'large, 8']);
  for (const extra of [undefined, null, 7, [], {}, { grid: 'x' }, { grid: { rows: ['a'] } }] as const)
    expect(gridOf(extra as never)).toBeNull();
});

test('colours follow the figures: of one sign from least to most, of both from zero', () => {
  if (!grid) throw new Error('no grid');
  const [mrr, change, ...rest] = heats(grid, board.rows);
  expect(rest).toEqual([]); // what no cell has is not drawn
  if (!mrr || !change) throw new Error('no maps');
  expect([mrr.low, mrr.high, mrr.diverging]).toEqual([0.25, 1, false]);
  expect(mrr.cells[1]?.[1]).toBeNull(); // no row of that name
  const shades = [0.25, 0.5, 1].map((value) => alpha(colourOf(value, mrr)));
  expect(shades).toEqual([...shades].sort((a, b) => a - b));
  expect(new Set(shades).size).toBe(3);
  expect(change.diverging).toBe(true);
  expect(colourOf(-0.5, change)).toContain('--against');
  expect(colourOf(2, change)).toContain('--for');
  expect(alpha(colourOf(-0.5, change))).toBeLessThan(alpha(colourOf(2, change)));
  expect(alpha(colourOf(3, { ...mrr, low: 3, high: 3 }))).toBeGreaterThan(0); // all the same
});

test('the map is a table with heads, and a cell chooses its row', () => {
  if (!grid) throw new Error('no grid');
  const chosen: string[] = [];
  const props = { board, grid, choose: (row: string) => chosen.push(row) };
  const made = mount(Heat, { target: document.body, props });
  flushSync();
  const [first] = document.querySelectorAll('table');
  expect(first?.caption?.textContent).toContain('MRR');
  expect([...(first?.querySelectorAll('th') ?? [])].map((th) => `${th.scope} ${th.textContent}`)).toEqual([
    'col 4 passes',
    'col 8 passes',
    'row small',
    'row large',
  ]);
  const button = first?.querySelectorAll('button')[1];
  expect(button?.textContent.replace(/\s+/g, ' ').trim()).toBe('0.500 0.400 to 0.600');
  button?.click();
  expect(chosen).toEqual(['small, 8']);
  expect(first?.querySelectorAll('tbody td.dim')).toHaveLength(1);
  void unmount(made);
});
