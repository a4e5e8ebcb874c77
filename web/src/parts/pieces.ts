// The parts of a long text that are worth showing: those around its marks. A training text may be a
// whole book; its beginning says little about why it is evidence. (report/pieces.py does the same.)
import type { Evidence } from '../types';
import { Characters, merged, type Range } from './characters';
import { atWords, place, strongest } from './marks';

const NEAR = 40; // characters on either side of a mark, at least
const WORTH = 60; // a gap of fewer characters is shown, not told
const WORDS = 6; // that carry most of the score

/** What is marked in an example, the most telling first: the same words, longest first; then those
 * that carry most of the score. */
export function marksOf(item: Evidence): Range[] {
  const characters = new Characters(item.text);
  const same = item.spans.map((span): Range => characters.toUnits(span)).filter(([start, end]) => start < end);
  same.sort((a, b) => b[1] - b[0] - (a[1] - a[0]) || a[0] - b[0]);
  const sign = (item.score ?? 0) < 0 ? -1 : 1;
  const told = strongest(item.text, place(item.text, item.tokens), 2 * WORDS).filter((one) => one.share * sign > 0);
  return [...same, ...told.slice(0, WORDS).map(({ start, end }): Range => [start, end])];
}

/** Ranges of the text in order, of about `most` characters together; without marks its beginning.
 * Marks that there is no room for are left out, of a very long one the beginning is shown. */
export function pieces(text: string, marks: readonly Range[], most: number): Range[] {
  if (text.length <= most) return [[0, text.length]];
  const chosen: Range[] = [];
  let room = most;
  for (const [start, last] of marks) {
    const end = Math.min(last, start + Math.floor(most / 2));
    const cost = end - start + 2 * NEAR;
    if (cost > room) continue;
    chosen.push([start, end]);
    room -= cost;
  }
  if (chosen.length === 0) return [atWords(text, 0, most)];
  const near = NEAR + Math.floor(room / (2 * chosen.length));
  const wide = chosen.map(([start, end]): Range => [Math.max(0, start - near - WORTH / 2), Math.min(text.length, end + near + WORTH / 2)]);
  return merged(wide).map(([start, end]) => atWords(text, start, end - start));
}
