// What two rankings of the same examples have in common, as the server gives it.
import type { Failure } from '../../types';

export interface Shared {
  id: string;
  text: string;
  a: number;
  b: number;
  rank_a: number;
  rank_b: number;
}

/** Whether it failed for want of a common example, which asking again does not change. */
export const nothingShared = (failure: Failure | null): boolean =>
  failure?.wrong.startsWith('The two sides share no example') ?? false;

export interface AgreementFound {
  overlap: { k: number; share: number; by_chance: number }[];
  spearman: number | null;
  pearson: number | null;
  points: Shared[];
  examples: number;
  only_a?: number;
  only_b?: number;
  says?: string;
}
