import { expect, test } from 'vitest';
import { isOfFilter, wrongPlace } from './filters';

const failure = (wrong: string) => ({ wrong, expected: null, found: null, do: null });

test('failures of a filter are known, and their places', () => {
  const syntax = failure('The filter is not understood at character 4');
  const column = failure('The filter asks for the column sorce at character 6, and there is none');
  const none = failure('The filter lets no example pass');
  expect([syntax, column, none].map(isOfFilter)).toEqual([true, true, true]);
  expect([syntax, column, none].map(wrongPlace)).toEqual([3, 5, null]);
  const other = failure('The model is gone at character 7');
  expect(isOfFilter(other)).toBe(false);
  expect(wrongPlace(other)).toBeNull();
});
