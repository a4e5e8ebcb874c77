import { flushSync, mount, unmount } from 'svelte';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import * as api from './api';
import ProgressBar from './parts/ProgressBar.svelte';
import { Work } from './work.svelte';

let watch: api.Watch = {};
beforeEach(() => {
  vi.spyOn(api, 'start').mockImplementation((_kind, _asked, given) => {
    watch = given ?? {};
    return { id: Promise.resolve('1'), result: new Promise<never>(() => undefined), cancel: () => undefined };
  });
});
afterEach(() => vi.restoreAllMocks());

/** What a bar says of it, besides its label. */
function said(work: Work<string>): string {
  const bar = mount(ProgressBar, { target: document.body, props: { label: 'Asking', before: work.before, progress: work.progress } });
  flushSync();
  const text = document.querySelector('.words')?.textContent.replace('Asking', '').trim() ?? '';
  void unmount(bar);
  return text;
}

test('who waits hears what is before it, and nothing of a queue once it is its turn', () => {
  const work = new Work<string>();
  void work.run('ask', { query: 'q' });
  expect(said(work)).toBe('');
  watch.queued?.(0); // the lane is free, or gets ready
  expect([said(work), work.state]).toEqual(['', 'waiting']);
  watch.queued?.(2);
  expect(said(work)).toBe('waits: 2 requests before it');
  watch.queued?.(1);
  expect(said(work)).toBe('waits: 1 request before it');
  watch.running?.(); // it has no progress to tell of yet
  expect([said(work), work.state]).toEqual(['', 'running']);
  watch.progress?.({ label: 'Scanning', done: 1, total: 2, unit: 'examples', line: 'Scanning: 1 of 2' });
  expect(said(work)).toBe('Scanning: 1 of 2');
});
