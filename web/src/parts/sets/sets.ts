// Sets of queries as the server gives them, and how each of the four kinds reads.
import { get, post } from '../../api';
import type { Answer, Json } from '../../types';

export interface Item {
  id: string | null;
  text: string;
  score: number | null;
  /** Whether it is a right example; null where the set does not say. */
  correct: boolean | null;
  /** How far it entails the fact, from 0 to 1. */
  ais?: number | null;
}

export interface Row {
  position: number;
  line: number;
  id: string;
  prompt: string;
  /** Null: an open prompt. */
  completion: string | null;
  /** As its line or its set tells it; null: not told. */
  kind: 'fact' | 'choice' | 'sum' | 'open' | null;
  instead_of: string | null;
  answers: string[];
  generations: string[];
  proponents: Item[];
  opponents: Item[];
  metrics: Record<string, number>;
  fields: Record<string, Json>;
  /** The whole of an answer of ours. */
  answer?: Answer | null;
}

export interface Metric {
  name: string;
  title: string;
  mean: number;
  low: number | null;
  high: number | null;
  rows: number;
}

export interface Page {
  total: number;
  columns: string[];
  metrics: Metric[];
  problems: { line: number; wrong: string }[];
  problem_count: number;
  rows: Row[];
}

export interface Wanted {
  filter?: string;
  sort?: string;
  descending?: boolean;
  offset?: number;
  limit?: number;
}

const path = (name: string): string => `query-sets/${encodeURIComponent(name)}`;

export function page(name: string, wanted: Wanted): Promise<Page> {
  const given = Object.entries(wanted).map(([key, value]) => [key, String(value)]);
  return get<Page>(`${path(name)}?${new URLSearchParams(Object.fromEntries(given))}`);
}

export interface Uploaded {
  name: string;
  rows: number;
  problems: { line: number; wrong: string }[];
  problem_count: number;
}
export const upload = (name: string, lines: string): Promise<Uploaded> =>
  post<Uploaded>('query-sets', { name, lines });

/** Where the server gives the set as a file. */
export const fileOf = (name: string, format: 'pair' | 'jsonl', filter: string): string =>
  `api/${path(name)}/export?${new URLSearchParams({ format, filter })}`;

const quoted = (id: string): string => `"${id.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;

/** Filters, none of them too long for the server, that together find rows by their ids. */
export function byIds(ids: string[], longest = 900, terms = 40): string[] {
  const made: string[][] = [];
  for (const id of ids) {
    const term = `id=${quoted(id)}`;
    const last = made.at(-1);
    if (last && last.length < terms && [...last, term].join(' or ').length <= longest) last.push(term);
    else if (term.length <= longest) made.push([term]);
  }
  return made.map((one) => one.join(' or '));
}

/** Rows of another set with these ids. */
export async function aligned(name: string, ids: string[]): Promise<Map<string, Row>> {
  const pages = await Promise.all(
    byIds(ids).map((filter) => page(name, { filter, limit: ids.length })),
  );
  const rows = pages.flatMap((one) => one.rows);
  return new Map(rows.filter((one) => ids.includes(one.id)).map((one) => [one.id, one]));
}

export type Kind = NonNullable<Row['kind']> | 'query';
export const KINDS: Record<Kind, string> = {
  fact: 'fact',
  choice: 'common sense',
  sum: 'arithmetic',
  open: 'open-ended',
  query: 'query',
};

/** Which kind a query is: as it is told, or as nobody can mistake it for; else a query and no more. */
export function kindOf(row: Row): Kind {
  if (row.kind) return row.kind;
  if (row.completion === null) return 'open';
  if (/^[\s\d.,()+\-−*/×÷=]+$/.test(row.prompt) && /\d\s*[-−+*/×÷]\s*\d/.test(row.prompt) && /^\s*[-−]?\d/.test(row.completion))
    return 'sum';
  return 'query';
}

/** A text in pieces, those equal to the needle marked; upper and lower case are alike. */
export function marked(text: string, needle: string): { text: string; hit: boolean }[] {
  const sought = needle.trim().toLowerCase();
  const low = text.toLowerCase();
  // Where lower case has another length, places would not fit.
  if (sought === '' || low.length !== text.length) return [{ text, hit: false }];
  const made: { text: string; hit: boolean }[] = [];
  let at = 0;
  for (let hit = low.indexOf(sought); hit >= 0; hit = low.indexOf(sought, at)) {
    if (hit > at) made.push({ text: text.slice(at, hit), hit: false });
    made.push({ text: text.slice(hit, hit + sought.length), hit: true });
    at = hit + sought.length;
  }
  if (at < text.length) made.push({ text: text.slice(at), hit: false });
  return made;
}
