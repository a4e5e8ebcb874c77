import { expect, test } from 'vitest';
import { addressOfMethod, filterOf, methodOf, offered, otherThan, rankedBy, sameIn, usualOther } from './methods';
import type { IndexInfo, MethodInfo } from './types';

const method = (name: string, missing: string | null, influence = true): MethodInfo =>
  ({ name, title: name, missing, influence }) as MethodInfo;
const texts = [method('bm25', null, false), method('dense', null, false), method('random', null, false)];
/** An index of features, with its model; of texts alone; and of a model whose features are not stored. */
const whole = {
  features: true,
  kinds: ['influence', 'verbatim', 'lexical', 'semantic'],
  methods: [...texts, method('trackstar', null), method('trak', 'no margins')],
} as unknown as IndexInfo;
const bare = {
  features: false,
  kinds: ['verbatim', 'lexical'],
  methods: [...texts, method('trackstar', 'no model'), method('ekfac', 'no model')],
} as unknown as IndexInfo;
const unscanned = { ...bare, methods: [...texts, method('trackstar', 'no features'), method('ekfac', null)] };
const names = (found: MethodInfo[]): string[] => found.map((one) => one.name);

test('what can be asked is offered, and what cannot says why', () => {
  const all = offered(whole);
  expect([names(all.influence), names(all.texts), names(all.unable)]).toEqual([['trackstar'], ['bm25', 'dense'], ['trak']]);
  const few = offered(bare); // without an encoder nothing is ranked by meaning
  expect([names(few.influence), names(few.texts), names(few.unable)]).toEqual([[], ['bm25'], ['trackstar', 'ekfac']]);
});

test('an index without its model is ranked by its texts, and no pass over the corpus begins unasked', () => {
  expect(methodOf(whole, {})?.name).toBe('trackstar');
  expect(methodOf(whole, { method: 'nonsense', ranker: 'nonsense' })?.name).toBe('trackstar');
  expect(methodOf(bare, {})?.name).toBe('bm25');
  expect(methodOf(bare, { method: 'trackstar' })?.missing).toBe('no model'); // a link's method is not replaced
  expect(methodOf(unscanned, {})?.name).toBe('bm25');
  expect(methodOf(unscanned, { method: 'ekfac' })?.name).toBe('ekfac');
  expect(names(otherThan(unscanned, method('bm25', null, false)))).toEqual(['ekfac', 'dense', 'random']);
  expect(names(otherThan(whole, method('trackstar', null)))).toEqual(['bm25', 'dense', 'random']);
  expect(usualOther(otherThan(whole, method('trackstar', null)))?.name).toBe('bm25');
  expect(usualOther(otherThan(unscanned, method('bm25', null, false)))).toBeUndefined();
});

test('a ranking of texts stands apart from the method of the question', () => {
  const [bm25] = texts as [MethodInfo];
  expect(addressOfMethod(bm25)).toEqual({ ranker: 'bm25' });
  expect(methodOf(whole, { method: 'trackstar', ranker: 'bm25' })?.name).toBe('bm25');
  expect(addressOfMethod(method('trackstar', null))).toEqual({ method: 'trackstar', ranker: null });
  expect(rankedBy(bm25)).toEqual({ evidence: ['lexical'] });
  expect(rankedBy(method('trackstar', null))).toEqual({ method: 'trackstar', evidence: ['influence'] });
  expect(rankedBy(method('random', null, false))).toBeNull();
  expect(sameIn(bare, bm25)?.name).toBe('bm25');
});

test('the filter of the address is that of the question', () => {
  expect(filterOf({ among: ' source=wiki ' })).toEqual({ filter: 'source=wiki' });
  expect(filterOf({ among: ' ', filter: 'of a search' })).toEqual({});
});
