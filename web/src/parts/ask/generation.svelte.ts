// The model's own words as they come. What came before a stop stays.
import { Cancelled, start, type Job } from '../../api';
import type { Failure, Progress, Token } from '../../types';
import { failureOf } from '../../work.svelte';
import { Characters } from '../characters';

export interface Sampling {
  max_tokens: number;
  temperature: number;
  top_k: number;
  top_p: number;
  seed: number;
}

/** As `headwater ask` has them: the likeliest word each time. */
export const LIKELIEST: Sampling = { max_tokens: 20, temperature: 0, top_k: 0, top_p: 1, seed: 0 };

interface Made {
  text: string;
  tokens: Token[];
}

/** Tokens of the server count characters; ours count units. */
export function inUnits(text: string, tokens: readonly Token[]): Token[] {
  const characters = new Characters(text);
  return tokens.map((one) => ({ ...one, start: characters.unit(one.start), end: characters.unit(one.end) }));
}

export class Generation {
  running = $state(false);
  /** How many others it waits for. */
  before = $state(0);
  progress: Progress | null = $state.raw(null);
  failure: Failure | null = $state.raw(null);
  tokens: Token[] = $state.raw([]);
  #job: Job<Made> | null = null;

  get text(): string {
    return this.tokens.map((one) => one.text).join('');
  }

  /** The text and its tokens; null when it failed before a first word. */
  async run(index: string, prompt: string, sampling: Sampling): Promise<Made | null> {
    this.cancel();
    this.running = true;
    this.tokens = [];
    this.failure = this.progress = null;
    this.before = 0;
    const job = start<Made>('generate', { index, prompt, ...sampling }, {
      queued: (before) => (this.before = before),
      running: () => (this.before = 0),
      progress: (progress) => (this.progress = progress),
      token: ({ text, probability }) => {
        if (this.#job !== job || text === '') return;
        const at = this.tokens.at(-1)?.end ?? 0;
        this.tokens = [...this.tokens, { text, start: at, end: at + text.length, probability }];
      },
    });
    this.#job = job;
    try {
      const made = await job.result;
      if (this.#job !== job) return null;
      this.tokens = inUnits(made.text, made.tokens);
      return { text: made.text, tokens: this.tokens };
    } catch (error) {
      if (this.#job !== job) return null;
      if (!(error instanceof Cancelled)) this.failure = failureOf(error);
      return this.tokens.length ? { text: this.text, tokens: this.tokens } : null;
    } finally {
      if (this.#job === job) this.running = false;
    }
  }

  cancel(): void {
    if (this.running) this.#job?.cancel();
  }
}
