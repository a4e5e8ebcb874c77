import { expect, test } from 'vitest';
import { Characters, merged, printable } from './characters';

test('characters are counted as Python counts them, by code point', () => {
  const text = 'a🙂b\ud83dc'; // an emoji, and half of one
  const characters = new Characters(text);
  expect(characters.length).toBe(Array.from(text).length);
  expect(text.slice(...characters.toUnits([1, 2]))).toBe('🙂');
  expect(text.slice(...characters.toUnits([2, 3]))).toBe('b');
  for (let one = 0; one <= characters.length; one++)
    expect(characters.character(characters.unit(one))).toBe(one);
  expect(characters.toUnits([-3, 99])).toEqual([0, text.length]);
  expect(new Characters('plain').toUnits([1, 3])).toEqual([1, 3]);
});

test('ranges that touch or overlap are one; empty ones are none', () => {
  expect(
    merged([
      [5, 7],
      [0, 2],
      [2, 3],
      [6, 6],
      [6, 9],
    ]),
  ).toEqual([
    [0, 3],
    [5, 9],
  ]);
});

test('nothing turns the words around or drives a terminal, and nothing moves', () => {
  const text = 'a\u202eb\x1b[0m\x00\r\n\tc\ud800🙂';
  const shown = printable(text);
  expect(shown).toBe('a�b�[0m� \n\tc�🙂');
  expect(shown).toHaveLength(text.length);
});
