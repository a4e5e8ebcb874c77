import { expect, test } from 'vitest';
import { excerpt, place, strongest, words } from './marks';

const at = (text: string, marks: { start: number; end: number }[]): string[] =>
  marks.map(({ start, end }) => text.slice(start, end));

test('tokens are found in their order; what a tokenizer added takes no room', () => {
  const text = 'Lima is in Peru. 🙂 Lima!';
  const marks = place(text, [
    ['<s>', 9],
    ['L', 0.1],
    ['ima', 0.2],
    [' is', 0.3],
    [' in', 0],
    [' Peru', -0.4],
    ['.', 0],
    ['', 0],
    [' 🙂', 0],
    [' Lima', 0.5],
    ['nowhere', 7],
  ]);
  expect(at(text, marks)).toEqual(['L', 'ima', ' is', ' in', ' Peru', '.', ' 🙂', ' Lima']);
  expect(marks.at(-1)?.share).toBe(0.5);
});

test('a tokenizer that drops the leading blank, or a text that was cut, does not matter', () => {
  expect(at('  The  end', place('  The  end', [['The', 1], ['end', 1]]))).toEqual(['The', 'end']);
  const cut = 'a '.repeat(500);
  expect(place(cut, [['a', 1]])).toHaveLength(1);
});

test("a word's share is the sum of its tokens'; the strongest come first, weak ones not at all", () => {
  const text = 'Lima is in Peru.';
  const marks = place(text, [['L', 0.1], ['ima', 0.2], [' is', -0.5], [' in', 0.01], [' Peru', 0.2], ['.', 2]]);
  const sums = words(text, marks);
  expect(at(text, sums)).toEqual(['Lima', 'is', 'in', 'Peru', '.']);
  expect(sums[0]?.share).toBeCloseTo(0.3);
  expect(at(text, strongest(text, marks.slice(0, -1), 9))).toEqual(['is', 'Lima', 'Peru']);
  expect(strongest(text, marks.slice(0, -1), 2)).toHaveLength(2);
});

test('a script without blanks stays in tokens', () => {
  const text = '字'.repeat(60);
  expect(words(text, place(text, Array.from({ length: 30 }, () => ['字字', 1] as [string, number])))).toHaveLength(30);
});

test('an excerpt holds the most of the score, ends at blanks, and cuts no character', () => {
  const text = `${'word '.repeat(400)}HERE ${'word '.repeat(400)}`;
  const start = text.indexOf('HERE');
  const [from, to] = excerpt(text, [{ start: 3, end: 4, share: 0.1 }, { start, end: start + 4, share: -5 }], [], 200);
  expect(text.slice(from, to)).toContain('HERE');
  expect(to - from).toBeLessThanOrEqual(200);
  expect(text[from - 1]).toBe(' ');
  const faces = '🙂'.repeat(500);
  const cut = excerpt(faces, [{ start: 501, end: 502, share: 1 }], [], 101);
  expect(faces.slice(...cut)).not.toMatch(/\p{Cs}/u);
  expect(excerpt('short', [], [], 200)).toEqual([0, 5]);
  expect(excerpt('x'.repeat(100_000), [], [[50_000, 50_010]], 400)[0]).toBeGreaterThan(49_000);
});
