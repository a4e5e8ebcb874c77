import { expect, test } from 'vitest';
import { hashOf, LONGEST, read } from './hash';
import { misfits, missing, toIndex, without } from './link';
import type { IndexInfo, MethodInfo } from './types';

const method = (name: string, lacks: string | null = null, influence = true): MethodInfo => ({
  name,
  title: name.toUpperCase(),
  unit: 'u',
  additive: false,
  influence,
  needs: '',
  costs: '',
  missing: lacks,
});
const facts: IndexInfo = {
  name: 'facts',
  examples: 9,
  features: true,
  model: 'ready',
  model_name: null,
  model_note: null,
  methods: [method('trackstar'), method('trak', 'It needs checkpoints.'), method('bm25', null, false)],
  kinds: ['influence', 'verbatim', 'lexical'],
  columns: ['relation'],
};
const texts: IndexInfo = {
  ...facts,
  name: 'texts',
  model: 'none',
  methods: [method('trackstar', 'no model')],
  kinds: ['verbatim', 'lexical'],
};
const both = [facts, texts];
const asked = { prompt: 'p', completion: ' Lima' };
const said = (values: Record<string, string>): Record<string, string> =>
  Object.fromEntries(misfits(facts, { ...asked, ...values }, 'ask').map((one) => [one.part, one.said]));

test('an index or method that is not there is asked about, never replaced', () => {
  const found = missing(both, { ...asked, index: 'nope' }, 'ask');
  expect([found?.part, found?.said, found?.choice.length]).toEqual(['index', 'nope', 2]);
  expect(missing(both, { index: 'nope' }, 'board')).toBeNull(); // it asks of no index
  for (const view of ['ask', 'compare', 'groups', 'map'] as const)
    expect(missing(both, { ...asked, method: 'nope' }, view)).toMatchObject({ part: 'method', choice: [['trackstar', 'TRACKSTAR']] });
  expect(missing(both, { ...asked, method: 'trak' }, 'ask')?.why).toContain('needs checkpoints');
  expect(missing(both, { ...asked, method: 'trak' }, 'compare')).toBeNull(); // that view says it
  expect(missing(both, { ...asked, method: 'nope', evidence: 'lexical' }, 'ask')).toBeNull();
  expect(said({ method: 'nope', evidence: 'lexical' })).toEqual({ method: 'nope' });
  expect(missing(both, { ...asked, with: 'index', index_b: 'nope' }, 'compare')?.part).toBe('index_b');
  expect(missing(both, { ...asked, with: 'method', method_b: 'nope' }, 'compare')?.part).toBe('method_b');
  expect(missing(both, { ...asked, method: 'trackstar' }, 'ask')).toBeNull();
  expect(missing([], { index: 'nope' }, 'ask')).toBeNull();
});

test('every other part that does not fit is named, and what fits is kept', () => {
  const wrong = { evidence: 'nope,lexical', candidates: 'lexical:abc', words: '0-5,99-120', top: '-5', by: 'x', uncertainty: 'y' };
  expect(said(wrong)).toEqual({ ...wrong, evidence: 'nope', words: '99-120' });
  const kept = without(misfits(facts, { ...asked, ...wrong }, 'ask'));
  expect(kept).toEqual({ evidence: 'lexical', words: '0-5', candidates: null, top: null, by: null, uncertainty: null });
  expect(said({ evidence: 'influence', candidates: 'lexical:9', words: '0-2,3-5', top: '5', by: 'relation', view: 'ask' })).toEqual({});
  expect(said({ view: 'nope', top: '0', words: '3-9' })).toEqual({ view: 'nope', top: '0', words: '3-9' });
});

test('a choice of another index takes along what it has', () => {
  const values = { ...asked, method: 'trackstar', evidence: 'influence,lexical', words: '0-5' };
  expect(toIndex(both, values, 'ask', 'texts')).toEqual({ index: 'texts', method: null, evidence: 'lexical' });
  expect(toIndex(both, values, 'ask', 'facts')).toEqual({ index: 'facts' });
  // Nor does a view that could only say that it cannot be asked there.
  expect(toIndex(both, { ...asked, method: 'trackstar' }, 'groups', 'texts')).toEqual({ index: 'texts', method: null });
  expect(toIndex(both, { ...asked, ranker: 'bm25' }, 'map', 'texts')).toEqual({ index: 'texts', ranker: null });
  expect(toIndex(both, { ...asked, ranker: 'bm25' }, 'map', 'facts')).toEqual({ index: 'facts' });
});

test('a long question survives its address; what is too long for any is left out whole', () => {
  const values = { view: 'ask', prompt: 'a b'.repeat(9_000), completion: ' Lima' };
  const { hash, left } = hashOf(values);
  expect(left).toEqual([]);
  expect(read(hash)).toEqual(values);
  const huge = hashOf({ ...values, prompt: '日'.repeat(LONGEST / 9) });
  expect(huge.left).toEqual(['prompt', 'completion']); // half a question is another one
  expect(read(huge.hash)).toEqual({ view: 'ask' });
  expect(read(`#prompt=${'a'.repeat(LONGEST)}`)).toBeNull();
});
