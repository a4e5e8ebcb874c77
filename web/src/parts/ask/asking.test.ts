import { expect, test } from 'vitest';
import type { IndexInfo, MethodInfo } from '../../types';
import { asking, usualKinds, usualMethod } from './asking.svelte';

const method = (name: string, more: Partial<MethodInfo> = {}): MethodInfo => ({
  name,
  title: name,
  unit: 'u',
  additive: false,
  influence: true,
  needs: '',
  costs: '',
  missing: null,
  ...more,
});
const index: IndexInfo = {
  name: 'i',
  examples: 9,
  features: true,
  model: 'ready',
  model_name: null,
  model_note: null,
  methods: [method('trak', { missing: 'margin' }), method('trackstar'), method('graddot', { additive: true }), method('bm25', { influence: false })],
  kinds: ['influence', 'verbatim', 'lexical', 'semantic'],
  columns: ['relation'],
};

test('the first method that can be asked is chosen, never one that cannot', () => {
  expect(usualMethod(index, '')).toBe('trackstar');
  expect(usualMethod(index, 'trak')).toBe('trackstar');
  expect(usualMethod(index, 'graddot')).toBe('graddot');
  expect(usualMethod(index, 'bm25')).toBe('trackstar');
  expect(usualKinds(index)).toEqual(['influence', 'verbatim', 'lexical']);
  expect(usualKinds({ ...index, methods: [], kinds: ['verbatim', 'lexical'] })).toEqual(['verbatim', 'lexical']);
});

test('a link becomes the request that it came from; words count characters', () => {
  const values = { prompt: 'p', completion: '🙂 Lima now', words: '2-6', method: 'graddot', evidence: 'influence,lexical', top: '5', by: 'relation,other' };
  expect(asking.take(index, values)).toBe(true);
  expect(asking.ranges).toEqual([[3, 7]]);
  expect(asking.requestOf(index)).toEqual({
    index: 'i',
    query: { prompt: 'p', completion: '🙂 Lima now', words: [[2, 6]] },
    evidence: ['influence', 'lexical'],
    top: 5,
    method: 'graddot',
    by: ['relation'],
  });
});

test('what does not go together is not asked', () => {
  asking.take(index, { prompt: 'p', completion: ' Lima', words: '0-5' });
  expect(asking.requestOf(index).query.words).toBeUndefined(); // all of it
  asking.ranges = [[0, 2]];
  asking.insteadOf = ' Quito';
  expect(asking.requestOf(index).query).toEqual({ prompt: 'p', completion: ' Lima', instead_of: ' Quito' });
  asking.by = ['relation'];
  asking.method = 'trackstar';
  expect(asking.requestOf(index).by).toBeUndefined(); // its scores may not be summed
  asking.kinds = ['lexical'];
  expect(asking.requestOf(index).method).toBeUndefined();
  expect(asking.take(index, { index: 'i' })).toBe(false);
  expect(asking.prompt).toBe('p'); // what is typed stays
});

test('candidates and a filter go from the address into the request, and what is no such thing does not', () => {
  const values = { prompt: 'p', completion: ' Lima', evidence: 'influence', method: 'graddot' };
  asking.take(index, { ...values, among: ' relation:capital ', candidates: 'lexical:50', uncertainty: '4' });
  const asked = asking.requestOf(index);
  expect(asked.filter).toBe('relation:capital');
  expect(asked.candidates).toEqual(['lexical', 50]);
  expect(asked.uncertainty).toBeUndefined(); // other projections are tried on the whole index
  asking.kinds = ['lexical'];
  expect(asking.requestOf(index).candidates).toBeUndefined(); // they are for influence
  expect(asking.requestOf(index).filter).toBe('relation:capital');
  for (const candidates of ['influence:9', 'lexical:0', 'lexical', 'lexical:1e9', '<b>:1', 'lexical:200000']) {
    asking.take(index, { ...values, candidates });
    expect(asking.requestOf(index).candidates).toBeUndefined();
  }
  asking.take({ ...index, kinds: ['influence'] }, { ...values, candidates: 'semantic:9' });
  expect(asking.requestOf({ ...index, kinds: ['influence'] }).candidates).toBeUndefined();
  expect(asking.filter).toBe(''); // a link without one has none
});
