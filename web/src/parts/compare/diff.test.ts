import { expect, test } from 'vitest';
import { joint } from './bins';
import { difference, wordsAt, wordsOf } from './diff';

const joined = (text: string, other: string, left: 'removed' | 'added'): string =>
  difference(text, other)
    .pieces.filter((piece) => piece.kind === 'same' || piece.kind === left)
    .map((piece) => piece.text)
    .join('');

test('pieces join to both texts again, blanks and line breaks included', () => {
  const pairs = [
    [' Lima, the  capital\nof Peru.', ' Quito, the capital of\tEcuador!  '],
    ['', ' new'],
    ['old ', ''],
    ['  ', '   '],
    ['naïve 日本語 text', 'naïve 日本 text 🙂'],
  ] as const;
  for (const [before, after] of pairs) {
    expect(joined(before, after, 'removed')).toBe(before);
    expect(joined(before, after, 'added')).toBe(after);
    expect(wordsOf(before).join('')).toBe(before);
  }
});

test('only the changed words are named, in characters as Python counts them', () => {
  const found = difference('🙂 The capital is Lima now', '🙂 The capital is Quito now');
  expect(found.removed).toEqual([[16, 21]]);
  expect(found.added).toEqual([[16, 22]]);
  expect(Array.from('🙂 The capital is Lima now').slice(16, 21).join('')).toBe(' Lima');
  expect(wordsAt('🙂 The capital is Quito now', found.added)).toBe('Quito');
});

test('equal texts differ nowhere; an insertion removes nothing', () => {
  expect(difference('a b c', 'a b c')).toMatchObject({ removed: [], added: [] });
  const inserted = difference('a c', 'a b c');
  expect(inserted.removed).toEqual([]);
  expect(inserted.added).toEqual([[1, 3]]);
});

test('as much as possible stays the same', () => {
  const moved = difference(' x a b c d', ' a b c y d');
  expect(moved.removed).toEqual([[0, 2]]);
  expect(moved.added).toEqual([[6, 8]]);
});

test('very long texts stay quick', () => {
  const many = Array.from({ length: 5000 }, (_, n) => `w${n}`).join(' ');
  const other = Array.from({ length: 5000 }, (_, n) => `v${n}`).join(' ');
  const started = performance.now();
  expect(difference(many, other).pieces).toHaveLength(2);
  expect(performance.now() - started).toBeLessThan(1000);
});

test('both sides share their bins, and what has no score is left out', () => {
  const bins = joint(new Float32Array([-1, 0, NaN, 1]), new Float32Array([3, 3]), 4);
  expect(bins?.edges).toEqual([-1, 0, 1, 2, 3]);
  expect(bins?.left).toEqual([1, 1, 1, 0]);
  expect(bins?.right).toEqual([0, 0, 0, 2]);
  expect(bins?.counted).toEqual([3, 2]);
  expect(joint(new Float32Array([NaN]), new Float32Array())).toBeNull();
  expect(joint(new Float32Array([2]), new Float32Array([2]), 2)?.counted).toEqual([1, 1]);
});
