// Ranges that overlap, as stretches that do not: each with all that lies over it.
import type { Range } from './characters';

export interface Segment {
  start: number;
  end: number;
  /** Which of the given ranges lie over it. */
  over: number[];
}

/** Cut [from, to) at every end of a range. */
export function segments(from: number, to: number, ranges: readonly Range[]): Segment[] {
  const cuts = new Set([from, to]);
  for (const range of ranges) for (const cut of range) if (cut > from && cut < to) cuts.add(cut);
  const sorted = [...cuts].sort((a, b) => a - b);
  const opening = ranges.map((range, place) => ({ range, place })).sort((a, b) => a.range[0] - b.range[0]);
  const made: Segment[] = [];
  let next = 0;
  let open: typeof opening = [];
  for (let at = 0; at + 1 < sorted.length; at++) {
    const [start, end] = [sorted[at] ?? 0, sorted[at + 1] ?? 0];
    while (next < opening.length && (opening[next]?.range[0] ?? Infinity) <= start) {
      const one = opening[next++];
      if (one) open.push(one);
    }
    open = open.filter((one) => one.range[1] > start);
    made.push({ start, end, over: open.map((one) => one.place).sort((a, b) => a - b) });
  }
  return made;
}
