// Whether what a link asks for is to be had here. A link may be old, cut short or typed by hand: an
// index or method that is not there is never replaced by another one unasked, and any other part
// that does not fit is named beside the answer.
import { VIEWS, type View } from './address.svelte';
import { offered } from './methods';
import { candidatesOf, KINDS, namers, usualMethod, wholeNumber } from './parts/ask/asking.svelte';
import { MODES } from './parts/compare/sides';
import { wordsOf } from './share';
import type { IndexInfo } from './types';

type Values = Record<string, string>;

export interface Misfit {
  /** The name of the part in the address. */
  part: string;
  /** What it says that does not fit. */
  said: string;
  why: string;
  /** What the part is without it; null = nothing. */
  kept: string | null;
}

export interface Missing {
  part: 'index' | 'index_b' | 'method' | 'method_b';
  said: string;
  why: string;
  /** What may be had instead: names, and what they are called. */
  choice: [name: string, title: string][];
}

const NEED_INDEX: readonly View[] = ['ask', 'compare', 'groups', 'map'];
const NOT_OPEN = 'which is not open here';

/** The indexes and methods by which nothing can be asked; the first one only. */
export function missing(indexes: IndexInfo[], values: Values, view: View): Missing | null {
  if (!NEED_INDEX.includes(view) || indexes.length === 0) return null;
  const open = (but?: string): Missing['choice'] =>
    indexes.filter((one) => one.name !== but).map((one) => [one.name, one.name]);
  const index = values['index'] ? indexes.find((one) => one.name === values['index']) : indexes[0];
  if (!index) return { part: 'index', said: values['index'] ?? '', why: NOT_OPEN, choice: open() };
  if (!values['completion']) return null;
  const why = methodMisfit(index, values, view);
  const able = index.methods.filter((one) => one.influence && one.missing === null);
  const choice = able.map((one): [string, string] => [one.name, one.title]);
  if (why && influences(index, values, view) && able.length)
    return { part: 'method', said: values['method'] ?? '', why, choice };
  if (view !== 'compare') return null;
  const [mode, other, way] = [values['with'], values['index_b'], values['method_b']];
  if (mode === 'index' && other && !indexes.some((one) => one.name === other) && indexes.length > 1)
    return { part: 'index_b', said: other, why: NOT_OPEN, choice: open(index.name) };
  if (mode === 'method' && way && !index.methods.some((one) => one.name === way))
    return { part: 'method_b', said: way, why: 'which is not there', choice };
  return null;
}

/** Why the method in the address is not asked; '' where it is. */
function methodMisfit(index: IndexInfo, values: Values, view: View): string {
  const name = values['method'];
  if (!name) return '';
  const method = index.methods.find((one) => one.name === name && one.influence);
  if (!method) return 'which is no method of influence here';
  // Other views keep the method and say themselves what it lacks.
  if (view !== 'ask' || usualMethod(index, name) === name) return '';
  return `which cannot be asked of this index: ${method.missing ?? ''}`.replace(/\.$/, '');
}

function influences(index: IndexInfo, values: Values, view: View): boolean {
  if (view !== 'ask') return true;
  const named = list(values['evidence']).filter((one) => index.kinds.some((kind) => kind === one));
  return named.length ? named.includes('influence') : index.kinds.includes('influence');
}

const list = (text: string | undefined): string[] => (text ?? '').split(',').filter((one) => one !== '');

/** What else in the address does not fit this index and output. */
export function misfits(index: IndexInfo, values: Values, view: View): Misfit[] {
  const found: Misfit[] = [];
  const say = (part: string, said: string, why: string, kept: string | null = null): void => {
    if (said) found.push({ part, said, why, kept });
  };
  const of = (part: string): string => values[part] ?? '';
  const some = (part: string, fits: (one: string) => boolean, why: string): void => {
    const all = list(values[part]);
    say(part, all.filter((one) => !fits(one)).join(','), why, all.filter(fits).join(',') || null);
  };
  if (!VIEWS.some((one) => one === (values['view'] ?? 'ask'))) say('view', of('view'), 'no such view');
  if (!NEED_INDEX.includes(view)) return found;
  const method = methodMisfit(index, values, view);
  if (method) say('method', of('method'), method);
  if (view !== 'ask' && !offered(index).texts.some((one) => one.name === values['ranker']))
    say('ranker', of('ranker'), 'no ranking of texts of this index');
  if (values['completion']) {
    const length = Array.from(values['completion']).length;
    const why = `no characters of this output, which has ${length}`;
    some('words', (one) => wordsOf(one, length) !== null, why);
  }
  if (view === 'compare' && values['with'] && !MODES.some(([mode]) => mode === values['with']))
    say('with', of('with'), 'no such comparison');
  if (view !== 'ask') return found;
  const kinds = KINDS.filter((kind) => index.kinds.includes(kind));
  some('evidence', (one) => kinds.some((kind) => kind === one), 'no kind of evidence of this index');
  some('by', (one) => index.columns.includes(one), 'no column of this index');
  const [by] = candidatesOf(values['candidates']);
  if (!by || !namers(index).includes(by)) say('candidates', of('candidates'), 'no candidates of this index');
  if (wholeNumber(values['top'], 1, -1) < 0) say('top', of('top'), 'not a whole number from 1 to 1000');
  if (wholeNumber(values['uncertainty'], 0, -1) < 0)
    say('uncertainty', of('uncertainty'), 'not a whole number from 0 to 1000');
  return found;
}

/** The parts of the address as they are without what does not fit. */
export const without = (wrong: Misfit[]): Record<string, string | null> =>
  Object.fromEntries(wrong.map(({ part, kept }) => [part, kept]));

/** To another index by choice: the question goes with it, what that index has not stays behind. */
export function toIndex(indexes: IndexInfo[], values: Values, view: View, name: string): Record<string, string | null> {
  const index = indexes.find((one) => one.name === name);
  if (!index) return { index: name };
  const lost = values['method'] && !offered(index).influence.some((one) => one.name === values['method']);
  return { ...without(misfits(index, values, view)), ...(lost ? { method: null } : {}), index: name };
}
