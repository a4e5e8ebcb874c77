// The whole app over a server that is not there: which links ask, and what is said of those that do not.
import { flushSync, mount, unmount } from 'svelte';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { address } from './address.svelte';
import App from './App.svelte';
import * as api from './api';
import { asking } from './parts/ask/asking.svelte';
import type { Session } from './types';

const session: Session = {
  version: '0',
  indexes: [
    {
      name: 'facts',
      examples: 9,
      features: true,
      model: 'none',
      model_name: null,
      model_note: 'The index was made of texts alone: it has no model.',
      methods: [],
      kinds: ['lexical'],
      columns: [],
    },
  ],
  query_sets: [],
  boards: [],
  limits: { queue: 1, upload_bytes: 1, max_tokens: 1, top: 100 },
};
let app: object;
const start = vi.spyOn(api, 'start');

async function open(values: Record<string, string>): Promise<void> {
  address.values = { prompt: 'p', completion: ' Lima', ...values };
  app = mount(App, { target: document.body });
  await vi.waitFor(() => expect(document.body.textContent).not.toContain('Opening'));
  flushSync();
}
beforeEach(() => {
  vi.spyOn(api, 'session').mockResolvedValue(session);
  start.mockReset().mockReturnValue({ result: new Promise(() => undefined), cancel: () => undefined } as never);
});
afterEach(() => {
  asking.ask.cancel(); // it outlives the view
  return unmount(app);
});

test('a link of an index that is not open asks nothing until one is chosen', async () => {
  await open({ index: 'nope' });
  const alert = document.querySelector('[role=alert]');
  expect(alert?.textContent.replace(/\s+/g, ' ')).toContain('the index “nope”, which is not open here');
  expect(start).not.toHaveBeenCalled();
  alert?.querySelector('button')?.click();
  flushSync();
  expect(document.querySelector('[role=alert]')).toBeNull();
  expect(start).toHaveBeenCalledOnce();
  expect(JSON.stringify(start.mock.calls[0])).toContain('"index":"facts"');
});

test('what else does not fit is named, and the rest is asked', async () => {
  await open({ index: 'facts', top: '-5', words: '99-120' });
  const told = document.querySelector('.notice')?.textContent ?? '';
  expect(told).toContain('“-5”');
  expect(told).toContain('“99-120”');
  expect(start).toHaveBeenCalledOnce();
  expect(document.body.textContent).toContain('it has no model. Type the output');
});
