// A board whose rows are cells of a grid, such as model sizes by amounts of training: each figure as a
// small heat map. The file is read with care: a cell that no row has is empty.
import type { Json } from '../../types';
import { isEstimate, type Figure, type Row } from './board';

export interface Grid {
  rows: string[];
  columns: string[];
  /** [rows][columns]: the names of the board's rows. */
  cells: string[][];
  figures: string[];
}

const texts = (value: Json | undefined): string[] => (Array.isArray(value) ? value.map(String) : []);

/** What the board's `extra.grid` says; null where there is no grid. */
export function gridOf(extra: Json | undefined): Grid | null {
  if (extra === null || typeof extra !== 'object' || Array.isArray(extra)) return null;
  const grid = extra['grid'];
  if (grid === null || typeof grid !== 'object' || Array.isArray(grid)) return null;
  const [rows, columns, figures] = [texts(grid['rows']), texts(grid['columns']), texts(grid['figures'])];
  const cells = Array.isArray(grid['cells']) ? grid['cells'].map(texts) : [];
  return rows.length && columns.length && figures.length && cells.length ? { rows, columns, cells, figures } : null;
}

export interface Heat {
  figure: string;
  /** [rows][columns]; null where the board has no such row. */
  cells: (Figure | null)[][];
  low: number;
  high: number;
  /** Both signs are there: colours turn at zero. */
  diverging: boolean;
}

/** The figures that some cell has, each with the ends of its scale. */
export function heats(grid: Grid, rows: Row[]): Heat[] {
  const named = new Map(rows.map((row) => [row.name, row]));
  return grid.figures.flatMap((figure) => {
    const cells = grid.rows.map((_, n) =>
      grid.columns.map((_, m) => named.get(grid.cells[n]?.[m] ?? '')?.figures[figure] ?? null),
    );
    const known = cells.flat().flatMap((one) => (one && isEstimate(one) ? [one.value] : []));
    if (!known.length) return [];
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return [{ figure, cells, low, high, diverging: low < 0 && high > 0 }];
  });
}

const LEAST = 0.06; // of the colour: a cell with a figure is not that of the page
const MOST = 0.5; // at which the ink on it has 4.5:1, light and dark

/** The colour of a value, as CSS: blue above zero, orange below where there are both signs. */
export function colourOf(value: number, { low, high, diverging }: Heat): string {
  const end = Math.max(Math.abs(low), Math.abs(high));
  const share = diverging ? Math.abs(value) / end : high > low ? (value - low) / (high - low) : 0.5;
  const name = diverging && value < 0 ? '--against' : '--for';
  return `rgb(var(${name}) / ${(LEAST + share * (MOST - LEAST)).toFixed(3)})`;
}
