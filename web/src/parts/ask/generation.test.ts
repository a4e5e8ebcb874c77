import { expect, test, vi } from 'vitest';
import { Cancelled, ServerError, start, type Watch } from '../../api';
import { Generation, LIKELIEST } from './generation.svelte';

vi.mock('../../api', async (load) => ({ ...(await load<typeof import('../../api')>()), start: vi.fn() }));

/** A job whose end is in the test's hands. */
function job(): { watch: () => Watch; end: (made: unknown) => void; fail: (why: Error) => void; cancel: () => void } {
  let watch: Watch = {};
  let settle: [(made: unknown) => void, (why: Error) => void] = [() => undefined, () => undefined];
  const result = new Promise((done, fail) => (settle = [done, fail]));
  const cancel = vi.fn();
  vi.mocked(start).mockImplementationOnce((_kind, _asked, given) => {
    watch = given ?? {};
    return { id: Promise.resolve('1'), result: result as never, cancel };
  });
  return { watch: () => watch, end: (made) => settle[0](made), fail: (why) => settle[1](why), cancel };
}

test('tokens come one by one, and the end brings the text with its places in units', async () => {
  const [made, now] = [new Generation(), job()];
  const done = made.run('i', 'p', LIKELIEST);
  now.watch().token?.({ text: ' 🙂', probability: 0.5 });
  now.watch().token?.({ text: ' a', probability: null });
  expect(made.running).toBe(true);
  expect(made.text).toBe(' 🙂 a');
  expect(made.tokens[1]).toMatchObject({ start: 3, end: 5 });
  const told = { text: ' 🙂 a', tokens: [{ text: ' 🙂', start: 0, end: 2, probability: 0.5 }, { text: ' a', start: 2, end: 4, probability: 1 }] };
  now.end(told);
  expect((await done)?.tokens[1]).toMatchObject({ start: 3, end: 5 });
  expect(made.running).toBe(false);
});

test('what came before a stop stays, and a stop is no failure', async () => {
  const [made, now] = [new Generation(), job()];
  const done = made.run('i', 'p', LIKELIEST);
  now.watch().token?.({ text: ' Li', probability: 0.5 });
  made.cancel();
  expect(now.cancel).toHaveBeenCalled();
  now.fail(new Cancelled('cancelled'));
  expect(await done).toMatchObject({ text: ' Li' });
  expect([made.running, made.failure]).toEqual([false, null]);
});

test('a failure is told, and words of a former run do not come into the next', async () => {
  const made = new Generation();
  const [old, now] = [job(), job()];
  const gone = made.run('i', 'p', LIKELIEST);
  const done = made.run('i', 'q', LIKELIEST);
  old.watch().token?.({ text: ' old', probability: 1 });
  now.watch().token?.({ text: ' new', probability: 1 });
  old.fail(new ServerError({ wrong: 'old', expected: null, found: null, do: null }, 500));
  expect(await gone).toBeNull();
  expect(made.failure).toBeNull();
  now.fail(new ServerError({ wrong: 'no', expected: null, found: null, do: null }, 500));
  expect(await done).toMatchObject({ text: ' new' });
  expect(made.failure?.wrong).toBe('no');
});
