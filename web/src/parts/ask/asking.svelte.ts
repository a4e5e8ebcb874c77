// The question that is being put together, kept while one looks at other views. The address holds
// what was asked; this holds what is typed as well.
import { address } from '../../address.svelte';
import { addressOf, queryOf } from '../../share';
import type { Answer, IndexInfo, KindName, Query, Token } from '../../types';
import { Work } from '../../work.svelte';
import { Characters, merged, type Range } from '../characters';
import type { Request } from '../serving';
import { Generation, inUnits, LIKELIEST, type Sampling } from './generation.svelte';

export const KINDS: readonly KindName[] = ['influence', 'verbatim', 'lexical', 'semantic'];
/** Asked at first: what needs no other model. */
const USUAL: readonly KindName[] = ['influence', 'verbatim', 'lexical'];
export const TOP = 10;
const NAMERS: readonly KindName[] = ['lexical', 'verbatim', 'semantic'];
const CANDIDATES = 200;
export const MOST_CANDIDATES = 100_000;

export interface Asked {
  answer: Answer;
  scores: string;
}

class Asking {
  prompt = $state('');
  completion = $state('');
  insteadOf = $state('');
  /** Units of the completion to explain; none = all. */
  ranges: Range[] = $state.raw([]);
  /** Of the completion, by the model; null where it was not asked. */
  tokens: Token[] | null = $state.raw(null);
  method = $state('');
  kinds: KindName[] = $state.raw([]);
  top = $state(TOP);
  by: string[] = $state.raw([]);
  uncertainty = $state(0);
  /** The kind that names candidates for influence; "" = all examples are. */
  candidatesBy: KindName | '' = $state('');
  candidates = $state(CANDIDATES);
  /** Only examples that pass it take part. */
  filter = $state('');
  sampling: Sampling = $state({ ...LIKELIEST });
  /** What the answer on the screen was asked with. */
  request: Request | null = $state.raw(null);
  answer: Answer | null = $state.raw(null);
  /** What was asked last, be it answered or not. */
  tried: Request | null = $state.raw(null);
  readonly generation = new Generation();
  readonly ask = new Work<Asked>();
  readonly tokenizing = new Work<{ prompt: Token[]; completion: Token[] }>();

  get query(): Query {
    const query: Query = { prompt: this.prompt, completion: this.completion };
    const characters = new Characters(this.completion);
    const words = merged(this.ranges.map((range) => characters.toCharacters(range)));
    const whole = words.length === 1 && words[0]?.[0] === 0 && words[0][1] === characters.length;
    // A contrast compares whole outputs.
    if (this.insteadOf) query.instead_of = this.insteadOf;
    else if (words.length && !whole) query.words = words;
    return query;
  }

  /** What would be asked of this index now. */
  requestOf(index: IndexInfo): Request {
    const evidence = this.kinds.filter((kind) => index.kinds.includes(kind));
    const made: Request = { index: index.name, query: this.query, evidence, top: this.top };
    const filter = this.filter.trim();
    if (filter) made.filter = filter;
    if (!evidence.includes('influence')) return made;
    if (this.method) made.method = this.method;
    const method = index.methods.find((one) => one.name === this.method);
    if (method?.additive && this.by.length) made.by = this.by;
    if (this.candidatesBy && namers(index).includes(this.candidatesBy))
      made.candidates = [this.candidatesBy, Math.max(1, Math.round(this.candidates) || CANDIDATES)];
    // Other projections are tried on the whole index.
    else if (this.uncertainty) made.uncertainty = this.uncertainty;
    return made;
  }

  setCompletion(text: string, tokens: Token[] | null = null): void {
    this.completion = text;
    this.tokens = tokens;
    this.ranges = [];
  }

  /** Ask, and put the question into the address. */
  async go(index: IndexInfo): Promise<void> {
    const request = this.requestOf(index);
    address.go({ index: index.name, ...addressOf(request.query), ...optionsOf(request) });
    await this.run(request);
  }

  async run(request: Request): Promise<void> {
    this.tried = request;
    const made = await this.ask.run('ask', { ...request });
    if (!made) return;
    this.request = request;
    this.answer = made.answer;
  }

  async tokenize(index: IndexInfo): Promise<void> {
    const { prompt, completion } = this;
    const made = await this.tokenizing.run('tokens', { index: index.name, prompt, completion });
    if (made && this.prompt === prompt && this.completion === completion)
      this.tokens = inUnits(completion, made.completion);
  }

  /** Take over what the address says; whether it holds a question. */
  take(index: IndexInfo, values: Record<string, string>): boolean {
    const query = queryOf(values);
    if (query) {
      const same = query.prompt === this.prompt && query.completion === this.completion;
      if (!same) this.setCompletion(query.completion);
      this.prompt = query.prompt;
      this.insteadOf = query.instead_of ?? '';
      const characters = new Characters(query.completion);
      this.ranges = (query.words ?? []).map((range) => characters.toUnits(range));
    }
    const named = (values['evidence'] ?? '').split(',') as KindName[];
    const told = KINDS.filter((kind) => named.includes(kind) && index.kinds.includes(kind));
    if (told.length) this.kinds = told;
    else if (!this.kinds.some((kind) => index.kinds.includes(kind))) this.kinds = usualKinds(index);
    this.method = usualMethod(index, values['method'] ?? this.method);
    this.top = wholeNumber(values['top'], 1, this.top);
    this.uncertainty = wholeNumber(values['uncertainty'], 0, query ? 0 : this.uncertainty);
    if (values['among'] !== undefined || query) this.filter = values['among'] ?? '';
    if (values['candidates'] !== undefined || query) {
      const [kind, count] = candidatesOf(values['candidates']);
      this.candidatesBy = kind && namers(index).includes(kind) ? kind : '';
      this.candidates = count;
    }
    if (values['by'] !== undefined || query)
      this.by = (values['by'] ?? '').split(',').filter((column) => index.columns.includes(column));
    return query !== null;
  }
}

/** The options as they stand in the address; those left alone are left out. */
function optionsOf(request: Request): Record<string, string | null> {
  return {
    method: request.method ?? null,
    evidence: request.evidence.join(','),
    top: request.top === TOP ? null : String(request.top),
    by: request.by?.join(',') ?? null,
    uncertainty: request.uncertainty ? String(request.uncertainty) : null,
    among: request.filter ?? null,
    candidates: request.candidates?.join(':') ?? null,
  };
}

/** Kinds of evidence of this index that can name candidates for influence. */
export const namers = (index: IndexInfo): KindName[] =>
  NAMERS.filter((kind) => index.kinds.includes(kind));

/** "lexical:200", read with care. */
export function candidatesOf(text: string | undefined): [KindName | '', number] {
  const [, kind, count] = /^(\w+):(\d{1,6})$/.exec(text ?? '') ?? [];
  const known = NAMERS.find((one) => one === kind);
  const value = Number(count);
  return known && value >= 1 && value <= MOST_CANDIDATES ? [known, value] : ['', CANDIDATES];
}

export function usualKinds(index: IndexInfo): KindName[] {
  const usual = USUAL.filter((kind) => index.kinds.includes(kind) && (kind !== 'influence' || usualMethod(index, '')));
  return usual.length ? usual : index.kinds.slice(0, 1);
}

/** The method by that name where it can be asked, else the first that can; "" where none can. */
export function usualMethod(index: IndexInfo, name: string): string {
  const able = index.methods.filter((one) => one.influence && one.missing === null);
  return (able.find((one) => one.name === name) ?? able[0])?.name ?? '';
}

/** A whole number of the address, up to 1000; `other` where it says none. */
export function wholeNumber(text: string | undefined, least: number, other: number): number {
  const value = Number(text);
  return text !== undefined && Number.isInteger(value) && value >= least && value <= 1000 ? value : other;
}

export const asking = new Asking();
