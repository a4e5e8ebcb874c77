import { expect, test } from 'vitest';
import { restored } from './list.svelte';
import * as share from './share';
import type { Query } from './types';

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

test('what the tab stored is read with care', () => {
  const row = { index: 'demo', id: 'a', action: 'drop', text: 'x', position: 3 };
  expect(restored('nonsense')).toEqual([]);
  expect(restored('{"a":1}')).toEqual([]);
  const found = restored(JSON.stringify([row, null, { ...row, action: 'explode' }, 7]));
  expect(found).toHaveLength(1);
  expect(found[0]).toMatchObject({ ...row, note: '', from: '' });
});
