import { expect, test } from 'vitest';
import { markdown, markdownText, passage } from './markdown';
import { marksOf, pieces } from './parts/pieces';
import type { Answer, Evidence } from './types';

const LONG = 'so it goes on and on '.repeat(5000); // 105,000 characters

test("Markdown: a training text's mark-up, tables, tags and directions do nothing", () => {
  const nasty = 'a | b\n# head <script>x</script> [l](javascript:y) \u202eevil `code`';
  const text = markdownText(nasty);
  expect(text).not.toMatch(/\n|\u202e/);
  expect(text).toContain('\\<script\\>');
  expect(text).toContain('\\|');
  expect(text).toContain('\\[l\\]');
});

const item = (more: object): Evidence =>
  ({ id: 'a', text: 'one', score: 0.25, percentile: 99.9, metadata: {}, tokens: [], spans: [], ...more }) as unknown as Evidence;

const ANSWER = {
  query: 'q',
  title: 'T',
  unit: 'cosine',
  method: { method: 'trackstar' },
  examples: 2467,
  probability: 0.5,
  picture: null,
  judgement: { summary: 'Something stands out.' },
  proponents: [item({})],
  opponents: [item({ id: 'b', text: 'two', score: null, percentile: null })],
  notes: ['n'],
  reproduce: { command: 'headwater ask x "```"' },
} as unknown as Answer;

test('an answer as Markdown has both signs in words and the command in a block', () => {
  const text = markdown(ANSWER);
  expect(text).toContain('Support it');
  expect(text).toContain('| 1 | +0.25 | 99.90 % | a | one |');
  expect(text).toContain('| 1 | – | – | b | two |');
  expect(text).toContain('````\nheadwater ask x "```"\n````');
});

test('scores of other kinds than influence have no sign', () => {
  const text = markdown({ ...ANSWER, method: {}, unit: 'BM25 score', proponents: [item({ score: 6.09 })] });
  expect(text).toContain('| 1 | 6.09 | 99.90 % |');
});

test('of a passage of 100 kB what is marked is shown, bold, and how much is left out', () => {
  const said = 'the grey owl of Lima';
  const text = `🙂 ${LONG}Seen: ${said}* was [there]. ${LONG}`;
  const start = Array.from(text.slice(0, text.indexOf(said))).length; // as Python counts
  const found = markdown({ ...ANSWER, query: LONG, proponents: [item({ text, spans: [[start, start + said.length + 1]] })] });
  expect(found.length).toBeLessThan(4000);
  expect(found).toContain(`Seen: **${said}**\\* was \\[there\\]`);
  const row = found.split('\n').find((line) => line.includes(said)) ?? '';
  const left = [...row.matchAll(/\(([\d,]+) characters left out\)/g)].map(([, n]) => Number(n?.replaceAll(',', '')));
  expect(left).toHaveLength(2);
  expect(left[0]! + left[1]!).toBeGreaterThan(text.length - 1000);
});

test('marks that are far apart are all shown; a mark as long as the text by its beginning', () => {
  const marks: [number, number][] = [[90_000, 90_020], [10, 30], [50_000, 50_010]];
  const found = pieces(LONG, marks, 600);
  expect(found).toHaveLength(3);
  for (const [start, end] of marks) expect(found.some(([a, b]) => a <= start && end <= b)).toBe(true);
  const [whole] = pieces(LONG, [[40_000, 90_000]], 600);
  expect(whole?.[0]).toBeLessThan(40_000);
  expect((whole?.[1] ?? 0) - (whole?.[0] ?? 0)).toBeLessThan(800);
  expect(pieces('short', [[0, 2]], 600)).toEqual([[0, 5]]);
  expect(passage(LONG)).toMatch(/^so it goes .* … \(104,2\d\d characters left out\) …$/);
});

test('what carries the score is marked, and only of the sign of the score', () => {
  const tokens = [['the', 0.01], [' grey', 0.5], [' owl', -0.4]];
  expect(marksOf(item({ text: 'the grey owl', tokens }))).toEqual([[4, 8]]);
  expect(marksOf(item({ text: 'the grey owl', tokens, score: -1 }))).toEqual([[9, 12]]);
  expect(passage('a (b) c', [[2, 5]])).toBe('a (**b**) c');
  expect(passage('a () c', [[2, 4]])).toBe('a () c');
});
