import { expect, test } from 'vitest';
import type { Token } from '../types';
import { plainTokens, rangesOf, touched, units } from './units';

const tokens = (texts: string[]): Token[] => {
  let at = 0;
  return texts.map((text) => {
    at += text.length;
    return { text, start: at - text.length, end: at, probability: 0.5 };
  });
};

test('tokens of one word are one unit, with the product of their probabilities', () => {
  const made = units(tokens([' L', 'ima', '.', ' I', "'", 'm', ' ', 'so']), 'words');
  expect(made.map((one) => one.text)).toEqual([' Lima', '.', " I'm", ' ', 'so']);
  expect(made[0]).toMatchObject({ start: 0, end: 5, probability: 0.25, tokens: [0, 1] });
  expect(units(tokens([' L', 'ima']), 'tokens')).toHaveLength(2);
});

test('a character of several tokens is never taken apart', () => {
  expect(units(tokens(['', '', '🙂', ' x']), 'tokens').map((one) => one.tokens)).toEqual([[0, 1, 2], [3]]);
});

test('units and ranges translate into each other; neighbours are one range', () => {
  const all = units(tokens([' one', ' two', ' three', ' four']), 'words');
  expect(rangesOf(all, new Set([0, 1, 3]))).toEqual([
    [0, 8],
    [14, 19],
  ]);
  expect([...touched(all, [[5, 6]])]).toEqual([1]);
  expect([...touched(all, [[4, 4]])]).toEqual([]);
});

test('without a model words come from the text, and join to it again', () => {
  for (const text of [' Lima, the capital.', '', '   ', 'שלום עולם', '日本語の文', 'a\n\nb '])
    expect(plainTokens(text).map((one) => one.text).join('')).toBe(text);
  expect(plainTokens(' Lima, yes').map((one) => one.text)).toEqual([' Lima', ',', ' yes']);
});
