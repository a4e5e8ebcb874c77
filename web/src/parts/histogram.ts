// The scores of all examples as bars. Heights are square roots of counts: a single example far out
// stays visible beside thousands in the middle.
import type { Distribution } from '../types';

export interface Bar {
  place: number;
  from: number;
  to: number;
  count: number;
  x: number;
  width: number;
  height: number;
}

export interface Chart {
  bars: Bar[];
  low: number;
  high: number;
  /** How many of the others are too far off to be drawn. */
  beyond: number;
  x: (score: number) => number;
}

/** `others`: scores that are marked as well, such as those of the null. They have room up to once
 * the reach of the scores on either side; farther ones are told in words, or the bars would vanish. */
export function chart(
  { edges, counts }: Distribution,
  others: readonly number[],
  width: number,
  height: number,
): Chart {
  const [first, last] = [edges[0] ?? 0, edges.at(-1) ?? 1];
  const own = last > first ? last - first : 1;
  const near = others.filter((one) => one >= first - own && one <= last + own);
  const low = Math.min(first, ...near);
  const high = Math.max(last, ...near);
  const reach = high > low ? high - low : 1;
  const x = (score: number): number => ((score - low) / reach) * width;
  const tallest = Math.sqrt(Math.max(1, ...counts));
  const bars = counts.map((count, place) => {
    const [from, to] = [edges[place] ?? 0, edges[place + 1] ?? 0];
    const tall = (Math.sqrt(count) / tallest) * height;
    // One example must be seen.
    return { place, from, to, count, x: x(from), width: x(to) - x(from), height: count ? Math.max(tall, 2) : 0 };
  });
  return { bars, low, high, x, beyond: others.length - near.length };
}

/** Which bar a score is in: the lower edge belongs to it, and of the last one the upper, too. */
export function binOf(score: number | null, edges: readonly number[]): number | null {
  const last = edges.length - 2;
  const [low, high] = [edges[0], edges.at(-1)];
  if (score === null || last < 0 || low === undefined || high === undefined) return null;
  // Scores are rounded to 32 bits on their way.
  const slack = 1e-6 * Math.max(Math.abs(low), Math.abs(high));
  if (!(score >= low - slack && score <= high + slack)) return null;
  let [from, to] = [0, last];
  while (from < to) {
    const middle = (from + to + 1) >> 1;
    if ((edges[middle] ?? 0) <= score) from = middle;
    else to = middle - 1;
  }
  return from;
}
