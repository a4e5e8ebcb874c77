import { expect, test } from 'vitest';
import type { Answer, OutputSpan } from '../types';
import { explained, spanRanges } from './output';
import { targetWords } from './targets';

const answer = (prompt: string, completion: string, spans: Partial<OutputSpan>[], target: string[] = []): Answer =>
  ({ prompt, completion, spans, target }) as unknown as Answer;

test('spans searched with the prompt, or in the output alone, lie where their words are', () => {
  const whole = answer('🙂 Lima is', ' the capital', [{ start: 2, end: 13, text: 'Lima is the', in_output: [0, 4] }]);
  const [range] = spanRanges(whole);
  expect((whole.prompt + whole.completion).slice(...(range ?? [0, 0]))).toBe('Lima is the');
  const alone = answer('Say it:', ' 🙂 the capital', [{ start: 3, end: 14, text: 'the capital', in_output: [3, 14] }]);
  expect((alone.prompt + alone.completion).slice(...(spanRanges(alone)[0] ?? [0, 0]))).toBe('the capital');
});

test('where the prompt is not the text that was searched, the part in the output is marked', () => {
  const chat = answer('user: x', ' Lima', [{ start: 0, end: 20, text: 'something other Lima', in_output: [0, 5] }]);
  expect(spanRanges(chat)).toEqual([[7, 12]]);
});

test('the explained words are known only where nothing else could be meant', () => {
  expect(explained(answer('', ' a b a', [], [' b']))).toEqual([[2, 4]]);
  expect(explained(answer('', ' a b a', [], [' a']))).toEqual([]);
  expect(explained(answer('', '🙂 b', [], []), [[1, 3]])).toEqual([[2, 4]]);
});

test('target tokens become words', () => {
  expect(targetWords([' L', 'i', 'ma', ' now', '.']).map((one) => one.places)).toEqual([[0, 1, 2], [3], [4]]);
});
