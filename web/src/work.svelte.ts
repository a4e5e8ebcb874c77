// One piece of work on the server, as a view shows it: waiting, going on, done, failed, cancelled.
// Results of the same request are remembered for a while, so that going from view to view asks once.
import { untrack } from 'svelte';
import { Cancelled, ServerError, start, type Job, type Watch } from './api';
import type { Failure, Progress } from './types';

const REMEMBERED = 24;
// Nothing is drawn from it: a plain Map is right.
// eslint-disable-next-line svelte/prefer-svelte-reactivity
const memory = new Map<string, unknown>();

function remember(key: string, result: unknown): void {
  memory.delete(key);
  memory.set(key, result);
  const [oldest] = memory.keys();
  if (memory.size > REMEMBERED && oldest !== undefined) memory.delete(oldest);
}

/** What failed, in words. */
export function failureOf(error: unknown): Failure {
  if (error instanceof ServerError) return error.failure;
  const found = error instanceof Error ? error.message : String(error);
  return { wrong: 'Something went wrong in this page', expected: null, found, do: 'reload it' };
}

export type State = 'idle' | 'waiting' | 'running' | 'done' | 'failed' | 'cancelled';

export class Work<T> {
  state: State = $state('idle');
  /** How many others it waits for. */
  before = $state(0);
  progress: Progress | null = $state.raw(null);
  failure: Failure | null = $state.raw(null);
  /** Of the last request that ended well; it stays while the next one runs. */
  result: T | null = $state.raw(null);
  #job: Job<T> | null = null;
  #latest = 0;
  #running: { key: string; result: Promise<T | null> } | null = null;

  get busy(): boolean {
    return this.state === 'waiting' || this.state === 'running';
  }

  /**
   * Ask; another request before this one is cancelled, the same one is waited for. Null when it
   * failed or was overtaken. May be called from effects: it does not depend on what it sets.
   */
  run(kind: string, asked: Record<string, unknown>, token?: Watch['token']): Promise<T | null> {
    const key = JSON.stringify([kind, asked]);
    return untrack(() => {
      if (this.busy && !token && this.#running?.key === key) return this.#running.result;
      this.cancel();
      this.failure = this.progress = null;
      this.before = 0;
      // What streams is wanted anew each time.
      const known = token ? undefined : (memory.get(key) as T | undefined);
      if (known !== undefined) return Promise.resolve(this.#end(known));
      this.state = 'waiting';
      const result = this.#follow(++this.#latest, kind, asked, token ? null : key, token);
      this.#running = { key, result };
      return result;
    });
  }

  async #follow(
    mine: number,
    kind: string,
    asked: Record<string, unknown>,
    key: string | null,
    token?: Watch['token'],
  ): Promise<T | null> {
    const still = (act: () => void): void => {
      if (mine === this.#latest) act();
    };
    const job = start<T>(kind, asked, {
      queued: (before) => still(() => (this.before = before)),
      running: () => still(() => this.#begun()),
      progress: (progress) =>
        still(() => {
          this.#begun();
          this.progress = progress;
        }),
      token: (one) => still(() => token?.(one)),
    });
    this.#job = job;
    try {
      const result = await job.result;
      if (key !== null) remember(key, result);
      return mine === this.#latest ? this.#end(result) : null;
    } catch (error) {
      still(() => {
        this.state = error instanceof Cancelled ? 'cancelled' : 'failed';
        if (!(error instanceof Cancelled)) this.failure = failureOf(error);
      });
      return null;
    }
  }

  #begun(): void {
    this.state = 'running';
    this.before = 0;
  }

  #end(result: T): T {
    this.result = result;
    this.state = 'done';
    return result;
  }

  cancel(): void {
    this.#latest++;
    untrack(() => {
      if (!this.busy) return;
      this.#job?.cancel();
      this.state = 'cancelled';
    });
  }

  /** As if nothing had been asked. */
  reset(): void {
    this.cancel();
    this.state = 'idle';
    this.result = null;
    this.failure = null;
  }
}
