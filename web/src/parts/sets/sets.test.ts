import { expect, test } from 'vitest';
import { byIds, kindOf, marked, type Row } from './sets';

const row = (changes: Partial<Row>): Row => ({
  position: 0,
  line: 1,
  id: 'a',
  prompt: 'The capital of Peru is',
  completion: ' Lima',
  kind: null,
  instead_of: null,
  answers: [],
  generations: [],
  proponents: [],
  opponents: [],
  metrics: {},
  fields: {},
  ...changes,
});

test('the four kinds, as they are told or as nobody can mistake them', () => {
  expect(kindOf(row({}))).toBe('query');
  expect(kindOf(row({ kind: 'fact' }))).toBe('fact');
  expect(kindOf(row({ instead_of: ' Quito' }))).toBe('query');
  expect(kindOf(row({ kind: 'choice', completion: null }))).toBe('choice');
  expect(kindOf(row({ prompt: '17 + 25 =', completion: ' 42', instead_of: ' 32' }))).toBe('sum');
  expect(kindOf(row({ prompt: '17 + 25 =', completion: ' 42', kind: 'fact' }))).toBe('fact');
  expect(kindOf(row({ completion: null }))).toBe('open');
  expect(kindOf(row({ prompt: 'In 1999-2000 it was', completion: ' 7 degrees' }))).toBe('query');
});

test('ids are found by filters that stay short, quotes and all', () => {
  const ids = Array.from({ length: 100 }, (_, n) => `a rather long id number ${n}`);
  const filters = byIds([...ids, 'say "x"\\', 'y'.repeat(2000)]);
  for (const one of filters) expect(one.length).toBeLessThanOrEqual(900);
  expect(filters.join(' or ').split(' or ')).toHaveLength(101);
  expect(filters.at(-1)).toContain('id="say \\"x\\"\\\\"');
});

test('marking finds every hit and keeps the text; nothing typed is a pattern', () => {
  const pieces = marked('Lima, lima (LIMA) .*', 'lima');
  expect(pieces.map((one) => one.text).join('')).toBe('Lima, lima (LIMA) .*');
  expect(pieces.filter((one) => one.hit)).toHaveLength(3);
  expect(marked('a.*b', '.*').filter((one) => one.hit)).toHaveLength(1);
  expect(marked('anything', ' ')).toEqual([{ text: 'anything', hit: false }]);
});
