// A board as it stands in its file, read with care: rows, figures with intervals, costs, findings.
import { figure } from '../../format';
import type { Board, Json } from '../../types';

export interface Estimate {
  value: number;
  low: number;
  high: number;
}
export type Figure = Estimate | string;

export interface Row {
  name: string;
  title: string;
  given: string[];
  figures: Record<string, Figure>;
  costs: Record<CostName, number | null>;
  parameters: Json;
}

export interface Finding {
  claim: string;
  holds: boolean | null;
  figures: string;
}

export interface Read {
  preset: string;
  columns: [string, string][];
  rows: Row[];
  findings: Finding[];
  notes: string[];
  headline: string;
  recipe: Json;
  trained: number | null;
}

export const COSTS = {
  seconds: 'of scoring all queries, on one thread, the index’s features included',
  trainings: 'the same time, in trainings of the model',
  memory: 'peak above what the process held before',
  disk: 'that the index grew by',
} as const;
export type CostName = keyof typeof COSTS;
export const COST_NAMES = Object.keys(COSTS) as CostName[];

type Fields = Record<string, Json>;
const fields = (value: Json | undefined): Fields =>
  value !== null && typeof value === 'object' && !Array.isArray(value) ? value : {};
const items = (value: Json | undefined): Json[] => (Array.isArray(value) ? value : []);
const text = (value: Json | undefined): string => (typeof value === 'string' ? value : '');
const number = (value: Json | undefined): number | null =>
  typeof value === 'number' && Number.isFinite(value) ? value : null;

function estimate(value: Json | undefined): Figure {
  if (typeof value === 'string') return value;
  const [at, low, high] = ['value', 'low', 'high'].map((name) => number(fields(value)[name]));
  if (typeof at !== 'number') return 'not measured';
  return { value: at, low: low ?? at, high: high ?? at };
}

function row(value: Json, columns: string[]): Row {
  const { name, title, given, figures, cost, trainings, parameters } = fields(value);
  const spent = fields(cost);
  return {
    name: text(name),
    title: text(title) || text(name),
    given: items(given).map(String),
    figures: Object.fromEntries(columns.map((one) => [one, estimate(fields(figures)[one])])),
    costs: {
      seconds: number(spent['seconds']),
      trainings: number(trainings),
      memory: number(spent['memory']),
      disk: number(spent['disk']),
    },
    parameters: parameters ?? null,
  };
}

export function read(board: Board): Read {
  const columns = Object.entries(fields(board['columns'])).map(
    ([name, told]): [string, string] => [name, text(told)],
  );
  const names = columns.map(([name]) => name);
  return {
    preset: text(board['preset']),
    columns,
    rows: items(board['rows']).map((one) => row(one, names)),
    findings: items(board['findings']).map((one) => {
      const { claim, holds, figures } = fields(one);
      return {
        claim: text(claim),
        holds: typeof holds === 'boolean' ? holds : null,
        figures: text(figures),
      };
    }),
    notes: items(board['notes']).map(String),
    headline: text(board['headline']) || (names[0] ?? ''),
    recipe: board['recipe'] ?? null,
    trained: number(board['training_seconds']),
  };
}

export const isEstimate = (value: Figure | undefined): value is Estimate => typeof value === 'object';

/** Which way a column is good, as its own sentence ends. */
export function better(told: string): 'lower' | 'one' | 'higher' {
  if (/(lower|fewer) is better$/.test(told)) return 'lower';
  return told.endsWith('1 is best') ? 'one' : 'higher';
}

const WORDS = { lower: 'lower is better', one: '1 is best', higher: 'higher is better' };
export const betterWords = (told: string): string => WORDS[better(told)];

/** A sort key of a figure: small is good. */
function distance(value: number, told: string): number {
  const good = better(told);
  return good === 'lower' ? value : good === 'one' ? Math.abs(value - 1) : -value;
}

export function best(rows: Row[], column: string, told: string): number | null {
  const known = rows.map((one) => one.figures[column]).filter(isEstimate);
  const sorted = known.map((one) => one.value).sort((a, b) => distance(a, told) - distance(b, told));
  return sorted[0] ?? null;
}

/** A row's value in a column of figures or costs; null sorts last either way. */
export function valueOf(one: Row, column: string): number | string | null {
  if (column === 'method') return one.title;
  if (column in COSTS) return one.costs[column as CostName];
  const found = one.figures[column];
  return isEstimate(found) ? found.value : null;
}

export function sorted(rows: Row[], column: string, descending: boolean): Row[] {
  const turn = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1;
    if (typeof x === 'string') return turn * x.localeCompare(String(y), 'en');
    return turn * (x - Number(y));
  });
}

/** Three places as the command line has it; leading digits of what is smaller. */
export function figureText(value: number, most: number): string {
  const text = most > 0 && most < 0.01 ? value.toPrecision(2) : value.toFixed(most < 10 ? 3 : 1);
  return text.replace('-', '−');
}

export const sizeOf = ({ value, low, high }: Estimate): number =>
  Math.max(Math.abs(value), Math.abs(low), Math.abs(high));

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(value: number): string {
  let [size, unit] = [value, 0];
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${Number(size.toPrecision(3))} ${UNITS[unit]}`;
}

export function costText(name: CostName, value: number | null): string {
  if (value === null) return '–';
  if (name === 'memory' || name === 'disk') return bytes(value);
  return name === 'seconds' ? `${figure(value)} s` : figure(Number(value.toPrecision(2)));
}
