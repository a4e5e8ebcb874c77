// What the server, a report and a notebook hand over: the very JSON of the Python side.
// Answers are those of `Answer.to_dict()`; every name here is a name there.

export type KindName = 'influence' | 'verbatim' | 'lexical' | 'semantic';
/** A value of JSON, as metadata holds them. */
export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

export interface Place {
  rank: number;
  score: number;
}

export interface Spread {
  over: string;
  count: number;
  score: [number, number];
  rank: [number, number];
}

export interface Evidence {
  id: string;
  text: string;
  score: number | null;
  percentile: number | null;
  position: number;
  metadata: Record<string, Json>;
  kind: KindName;
  specificity: number | null;
  tokens: [string, number][];
  by_target: number[];
  duplicates: string[];
  kinds: Partial<Record<KindName, Place>>;
  support: string | null;
  terms: [string, number][];
  spans: [number, number][];
  out_of_turn: boolean;
  spreads: Spread[];
}

export interface Judgement {
  best: number;
  null: number[];
  p_value: number | null;
  stands_out: boolean | null;
  summary: string;
}

export interface Distribution {
  edges: number[];
  counts: number[];
}

/** A stretch of the output that stands in the corpus word for word; see evidence/span.py. */
export interface OutputSpan {
  start: number;
  end: number;
  text: string;
  count: number;
  log_probability: number;
  parts: { start: number; end: number; text: string; tokens: number; count: number }[];
  documents: SpanDocument[];
  output_tokens: number;
  /** Characters [start, end) of the completion. */
  in_output: [number, number];
}

export interface SpanDocument {
  position: number;
  id: string;
  matches: [number, number][];
  snippet: string;
  url: string | null;
  metadata: Record<string, Json>;
}

export interface Answer {
  query: string;
  prompt: string;
  completion: string;
  target: string[];
  probability: number | null;
  method: Record<string, Json>;
  title: string;
  unit: string;
  additive: boolean;
  examples: number;
  proponents: Evidence[];
  opponents: Evidence[];
  judgement: Judgement;
  groups: Record<string, [string, number, number][]>;
  notes: string[];
  seconds: Record<string, number>;
  reproduce: { command?: string; python?: string; left_out?: string };
  name: string | null;
  kinds: Partial<Record<KindName, { title: string; unit: string; note: string; examples: number }>>;
  spans: OutputSpan[];
  picture: { kind: string; summary: string; figures: Record<string, Json> } | null;
  instead_of: string | null;
  fusion: string | null;
  candidates_of: number | null;
  distribution: Distribution | null;
}

/** What is explained. `words`: characters [start, end) of the completion; none = all of it. */
export interface Query {
  prompt: string;
  completion: string;
  instead_of?: string | null;
  words?: [number, number][];
}

export interface Token {
  text: string;
  start: number;
  end: number;
  /** The model's, given all before it; null for a prompt's first token. */
  probability: number | null;
}

/** Why something failed, in the words of the command line. */
export interface Failure {
  wrong: string;
  expected: string | null;
  found: string | null;
  do: string | null;
}

export interface MethodInfo {
  name: string;
  title: string;
  unit: string;
  additive: boolean;
  influence: boolean;
  needs: string;
  costs: string;
  /** Why it cannot be asked of this index as it stands; null where it can. */
  missing: string | null;
}

export interface IndexInfo {
  name: string;
  examples: number;
  /** Whether features are stored: methods that are views answer by a scan. */
  features: boolean;
  /** "ready" (loaded), "known" (loads when it is needed), "ask" (named by an index that somebody
   * else made: loads only after consent), "none". */
  model: 'ready' | 'known' | 'ask' | 'none';
  model_name: string | null;
  /** Why there is none, or what loading it means. */
  model_note: string | null;
  methods: MethodInfo[];
  kinds: KindName[];
  columns: string[];
}

export interface Session {
  version: string;
  indexes: IndexInfo[];
  query_sets: string[];
  boards: string[];
  limits: { queue: number; upload_bytes: number; max_tokens: number; top: number };
}

export interface Progress {
  label: string;
  done: number;
  total: number | null;
  unit: string;
  /** The same in one line, with rate and ETA. */
  line: string;
}

/** What a report or a widget holds instead of a server. */
export interface Payload {
  version: string;
  title: string;
  answers: Answer[];
  board?: Board | null;
}

/** `board.json`; see evaluation/board.py. */
export type Board = Record<string, Json>;
