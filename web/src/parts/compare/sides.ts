// What is asked for each way of comparing: two requests, or the reason why there are none.
import { rankedBy } from '../../methods';
import type { IndexInfo, MethodInfo, Query } from '../../types';
import { difference } from './diff';

export type Mode = 'words' | 'method' | 'index';
export const MODES: readonly (readonly [Mode, string])[] = [
  ['words', 'another completion'],
  ['method', 'another method'],
  ['index', 'another index or checkpoint'],
];

/** One side: what is ranked, and what is asked to see its examples (null: only ranks can be had). */
export interface Side {
  ranked: { index: string; query: Query; method: string; filter?: string };
  ask: Record<string, unknown> | null;
}

export interface Asks {
  left: Side | null;
  right: Side | null;
  /** Whether the rankings are of the same query, so that agreement means something. */
  agree: boolean;
  /** Why nothing is asked. */
  why: string;
}

export interface Given {
  index?: IndexInfo;
  method?: MethodInfo;
  query: Query | null;
  indexB?: IndexInfo;
  methodB?: MethodInfo;
  /** The methods that may be chosen for the other side. */
  ways?: MethodInfo[];
  /** The edited completion. */
  other?: string;
  /** Only examples that pass it, on both sides. */
  filter?: string;
}

const nothing = (why: string): Asks => ({ left: null, right: null, agree: false, why });

function side(index: IndexInfo, method: MethodInfo, query: Query, filter: string | undefined): Side {
  const of = { index: index.name, query, ...(filter ? { filter } : {}) };
  // By one kind alone: a fused order of several kinds of evidence has no scale to share.
  const how = rankedBy(method);
  return { ranked: { ...of, method: method.name }, ask: how && { ...of, ...how } };
}

export function asks(mode: Mode, given: Given): Asks {
  const { index, method, query, indexB, methodB, other, filter } = given;
  if (!index || !method || !query) return nothing('');
  if (method.missing !== null) return nothing(`${method.title}: ${method.missing}`);
  if (mode === 'words') {
    if (other === undefined) return nothing('Edit the completion above, then compare.');
    const { removed, added } = difference(query.completion, other);
    if (!removed.length && !added.length) return nothing('The two completions are the same.');
    const { prompt, completion } = query;
    const of = (text: string, words: [number, number][]): Side | null =>
      words.length ? side(index, method, { prompt, completion: text, words }, filter) : null;
    return { left: of(completion, removed), right: of(other, added), agree: false, why: '' };
  }
  if (mode === 'index' && !indexB)
    return nothing('Only one index is open. Start the server with two: headwater serve ONE OTHER');
  if (mode === 'method' && !methodB && given.ways?.length)
    return nothing('Choose the other method: those that are left read the whole corpus first.');
  if (!indexB || !methodB) return nothing('This index has no other method that can be asked.');
  if (methodB.missing !== null) return nothing(`${methodB.title} in ${indexB.name}: ${methodB.missing}`);
  const right = side(indexB, methodB, query, filter);
  return { left: side(index, method, query, filter), right, agree: true, why: '' };
}
