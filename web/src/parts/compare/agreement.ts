// What two rankings of the same examples have in common, as the server gives it.

export interface Shared {
  id: string;
  text: string;
  a: number;
  b: number;
  rank_a: number;
  rank_b: number;
}

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
