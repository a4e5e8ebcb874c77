import { expect, test } from 'vitest';
import { restored } from './list.svelte';
import * as share from './share';
import type { Answer, Query } from './types';

test('a link holds the screen and never the token', () => {
  const place = new URL('http://127.0.0.1:8613/proxy/?token=secret#view=map&index=demo');
  expect(share.linkOf(place)).toBe('http://127.0.0.1:8613/proxy/#view=map&index=demo');
});

test('a query survives the address, ranges and odd characters included', () => {
  const query: Query = {
    prompt: 'a & b = #c? 🙂\n',
    completion: ' Lima, 日本 & more',
    instead_of: ' Quito',
    words: [
      [0, 5],
      [9, 12],
    ],
  };
  const kept = Object.entries(share.addressOf(query)).filter(
    (pair): pair is [string, string] => pair[1] !== null,
  );
  const values = Object.fromEntries(new URLSearchParams(String(new URLSearchParams(kept))));
  expect(share.queryOf(values)).toEqual(query);
  expect(share.queryOf({ prompt: 'only' })).toBeNull();
});

test('ranges of anybody: sorted, joined, what is none of the text left out', () => {
  expect(share.rangesOf('9-12,0-5,4-7', 20)).toEqual([
    [0, 7],
    [9, 12],
  ]);
  expect(share.rangesOf('3-3,x,5-2,-1-4,8-10,8-99,1e9-2,12-15', 10)).toEqual([[8, 10]]);
  expect(share.rangesOf(undefined, 10)).toEqual([]);
});

test('cells of CSV are no formulas, numbers stay numbers', () => {
  expect(share.cell('=HYPERLINK("x")')).toBe(`"'=HYPERLINK(""x"")"`);
  expect(share.cell('@sum')).toBe(`"'@sum"`);
  expect(share.cell(-0.5)).toBe('-0.5');
  expect(share.csv([{ a: 'x,y', b: 1 }, { a: 'z', c: null }])).toBe('a,b,c\r\n"x,y",1,\r\nz,,\r\n');
});

test("Markdown: a training text's mark-up, tables, tags and directions do nothing", () => {
  const nasty = 'a | b\n# head <script>x</script> [l](javascript:y) \u202eevil `code`';
  const text = share.markdownText(nasty);
  expect(text).not.toMatch(/\n|\u202e/);
  expect(text).toContain('\\<script\\>');
  expect(text).toContain('\\|');
  expect(text).toContain('\\[l\\]');
});

test('an answer as Markdown has both signs in words and the command in a block', () => {
  const answer = {
    query: 'q',
    title: 'T',
    unit: 'cosine',
    examples: 2467,
    probability: 0.5,
    picture: null,
    judgement: { summary: 'Something stands out.' },
    proponents: [{ id: 'a', text: 'one', score: 0.25, percentile: 99.9, metadata: {} }],
    opponents: [{ id: 'b', text: 'two', score: null, percentile: null, metadata: {} }],
    notes: ['n'],
    reproduce: { command: 'headwater ask x "```"' },
  } as unknown as Answer;
  const text = share.markdown(answer);
  expect(text).toContain('Support it');
  expect(text).toContain('| 1 | +0.25 | 99.90 % | a | one |');
  expect(text).toContain('| 1 | – | – | b | two |');
  expect(text).toContain('````\nheadwater ask x "```"\n````');
});

test('what the tab stored is read with care', () => {
  const row = { index: 'demo', id: 'a', action: 'drop', text: 'x', position: 3 };
  expect(restored('nonsense')).toEqual([]);
  expect(restored('{"a":1}')).toEqual([]);
  const found = restored(JSON.stringify([row, null, { ...row, action: 'explode' }, 7]));
  expect(found).toHaveLength(1);
  expect(found[0]).toMatchObject({ ...row, note: '', from: '' });
});

test('no method that passes over the whole corpus begins unasked', () => {
  const method = (name: string, missing: string | null, influence = true): object => ({ name, missing, influence });
  const methods = [method('bm25', null, false), method('trackstar', 'no features'), method('ekfac', null)];
  const index = { features: false, methods } as never;
  expect(share.methodOf(index, undefined)?.name).toBe('trackstar');
  expect(share.methodOf(index, 'ekfac')?.name).toBe('ekfac');
  const stored = { features: true, methods: [methods[0], method('trackstar', null), methods[2]] } as never;
  expect(share.methodOf(stored, 'nonsense')?.name).toBe('trackstar');
});
