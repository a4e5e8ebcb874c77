// Two sets of scores in one histogram: the same bins for both, so that lengths can be compared.

export interface Bins {
  edges: number[];
  left: number[];
  right: number[];
  /** Examples with a score. */
  counted: [number, number];
}

function range(...all: Float32Array[]): [number, number] | null {
  let [low, high] = [Infinity, -Infinity];
  for (const scores of all)
    for (const score of scores)
      if (Number.isFinite(score)) {
        if (score < low) low = score;
        if (score > high) high = score;
      }
  return low <= high ? [low, high] : null;
}

function counts(scores: Float32Array, low: number, high: number, bins: number): number[] {
  const made = new Array<number>(bins).fill(0);
  const wide = high - low || 1;
  for (const score of scores) {
    if (!Number.isFinite(score)) continue;
    const bin = Math.min(bins - 1, Math.floor(((score - low) / wide) * bins));
    made[bin] = (made[bin] ?? 0) + 1;
  }
  return made;
}

const total = (values: number[]): number => values.reduce((sum, one) => sum + one, 0);

/** Scores on one scale in equal bins; null where no example has a score. NaN is left out. */
export function joint(left: Float32Array, right: Float32Array, bins = 24): Bins | null {
  const found = range(left, right);
  if (!found) return null;
  const [low, high] = found;
  const edges = Array.from({ length: bins + 1 }, (_, n) => low + ((high - low) * n) / bins);
  const [a, b] = [counts(left, low, high, bins), counts(right, low, high, bins)];
  return { edges, left: a, right: b, counted: [total(a), total(b)] };
}
