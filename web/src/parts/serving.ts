// What a server can add to an answer. A part that needs one of these is absent where it is not given,
// so that the same answer shows in a file and in a notebook.
import type { Json, KindName, Query } from '../types';

/** What is asked, as the server takes it (job "ask"). */
export interface Request {
  index: string;
  query: Query;
  /** Of influence; left out = the server's own choice. */
  method?: string;
  evidence: KindName[];
  top: number;
  /** Metadata columns to total by. */
  by?: string[];
  /** Further projection seeds to score by. */
  uncertainty?: number;
  /** Influence only on so many of the best by another kind. */
  candidates?: [KindName, number];
  /** Only examples that pass it. */
  filter?: string;
}

export interface Neighbour {
  id: string;
  position: number;
  text: string;
}

export interface DocumentAround extends Neighbour {
  metadata: Record<string, Json>;
  before: Neighbour[];
  after: Neighbour[];
}

/** Which words of one example each token of the output leans on. */
export interface Pair {
  targets: string[];
  tokens: string[];
  /** [targets][tokens], in the answer's unit. */
  shares: number[][];
  total: number;
}

export interface Patched {
  name: string;
  title: string;
  ids: string[];
  points: number[];
  nats: number[];
  mean_points: number;
  mean_nats: number;
}

export interface Retrained {
  name: string;
  title: string;
  left_out: string[][];
  log_p: number[];
  says: string[];
  probability: number;
}

export interface Verification {
  probability: number;
  title: string;
  subject: string;
  examples: number;
  found: { id: string; text: string; score: number; duplicates: string[] }[];
  group: [string, string] | null;
  step: string | null;
  patched: Patched[];
  p_value: number | null;
  training: string | null;
  seeds: number[];
  retrained: Retrained[];
  notes: string[];
  verdict: string;
  confirmed: boolean | null;
  patch_verdict: string | null;
}

export interface Serving {
  /** What was asked, to ask for more of the same. */
  request: Request;
  document: (position: number, around: number) => Promise<DocumentAround>;
  /** Whether the index has a model at hand: for the matrix and the tests. */
  model: boolean;
  /** Metadata columns, to put a whole group to the test. */
  columns: string[];
}
