import { expect, test } from 'vitest';
import type { IndexInfo, MethodInfo } from '../../types';
import { asks } from './sides';

const method = (name: string, changes: Partial<MethodInfo> = {}): MethodInfo => ({
  name,
  title: name,
  unit: 'cosine',
  additive: false,
  influence: true,
  needs: '',
  costs: '',
  missing: null,
  ...changes,
});
const index = { name: 'demo', methods: [] } as unknown as IndexInfo;
const query = { prompt: 'p', completion: ' Lima now' };

test('an edit asks for the changed words only, on each side its own', () => {
  const one = method('trackstar');
  const found = asks('words', { index, method: one, query, other: ' Quito now' });
  expect(found.left?.ranked.query).toEqual({ prompt: 'p', completion: ' Lima now', words: [[0, 5]] });
  expect(found.right?.ranked.query.words).toEqual([[0, 6]]);
  expect(found.agree).toBe(false);
  const inserted = asks('words', { index, method: one, query, other: ' Lima right now' });
  expect(inserted.left).toBeNull();
  expect(inserted.right?.ranked.query.words).toEqual([[5, 11]]);
  expect(asks('words', { index, method: one, query, other: ' Lima now' }).why).toContain('same');
});

test('rankers without influence are ranked, and shown as the evidence that they are', () => {
  const given = { index, method: method('trackstar'), query, indexB: index };
  const bm25 = asks('method', { ...given, methodB: method('bm25', { influence: false }) });
  expect(bm25.right?.ranked.method).toBe('bm25');
  expect(bm25.right?.ask).toMatchObject({ evidence: ['lexical'] });
  const random = asks('method', { ...given, methodB: method('random', { influence: false }) });
  expect(random.right?.ask).toBeNull();
  expect(random.agree).toBe(true);
});

test('a filter narrows both sides, and both rankings', () => {
  const found = asks('method', { index, method: method('a'), query, indexB: index, methodB: method('bm25', { influence: false }), filter: 'x=1' });
  for (const side of [found.left, found.right]) {
    expect(side?.ranked.filter).toBe('x=1');
    expect(side?.ask).toMatchObject({ filter: 'x=1' });
  }
  expect(asks('method', { index, method: method('a'), query, indexB: index, methodB: method('b') }).left?.ranked).not.toHaveProperty('filter');
});

test('what cannot be asked says why', () => {
  const missing = method('trak', { missing: 'needs margin features' });
  expect(asks('method', { index, method: method('a'), query, indexB: index, methodB: missing }).why).toContain(
    'margin',
  );
  expect(asks('method', { index, method: method('a'), query, indexB: index, ways: [method('slow')] }).why).toContain('Choose');
  expect(asks('method', { index, method: method('a'), query, indexB: index, ways: [] }).why).toContain('no other method');
  expect(asks('index', { index, method: method('a'), query }).why).toContain('Only one index');
  expect(asks('words', { index, method: method('a'), query: null }).left).toBeNull();
});
