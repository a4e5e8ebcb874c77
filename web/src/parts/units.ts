// What one picks in an output: words (the tokens of a word joined) or single tokens.
import type { Token } from '../types';
import { merged, type Range } from './characters';

export type Grain = 'words' | 'tokens';

export interface Unit {
  text: string;
  start: number;
  end: number;
  /** The product over its tokens; null where one of them has none. */
  probability: number | null;
  /** Places of its tokens. */
  tokens: number[];
}

export function units(tokens: readonly Token[], grain: Grain): Unit[] {
  const made: Unit[] = [];
  tokens.forEach((token, place) => {
    const last = made.at(-1);
    const joins =
      last !== undefined &&
      // A piece of a character stands with the one that completes it.
      (last.text === '' || token.text === '' || (grain === 'words' && insideWord(last.text, token.text)));
    if (!joins) {
      const { text, start, end, probability } = token;
      made.push({ text, start, end, probability, tokens: [place] });
      return;
    }
    last.text += token.text;
    last.end = Math.max(last.end, token.end);
    const known = last.probability !== null && token.probability !== null;
    last.probability = known ? (last.probability ?? 1) * (token.probability ?? 1) : null;
    last.tokens.push(place);
  });
  return made;
}

const insideWord = (before: string, after: string): boolean =>
  /[\p{L}\p{M}\p{N}_'’]$/u.test(before) && /^[\p{L}\p{M}\p{N}_'’]/u.test(after);

/** Words of a text where there is no model to ask: a blank goes with the word after it. */
export function plainTokens(text: string): Token[] {
  const cut = new Intl.Segmenter(undefined, { granularity: 'word' });
  const made: Token[] = [];
  let held = '';
  const push = (piece: string, end: number): void => {
    made.push({ text: piece, start: end - piece.length, end, probability: null });
  };
  for (const { segment, index } of cut.segment(text)) {
    held += segment;
    if (segment.trim() === '') continue;
    push(held, index + segment.length);
    held = '';
  }
  if (held !== '') push(held, text.length);
  return made;
}

/** The units that ranges touch. */
export function touched(all: readonly Unit[], ranges: readonly Range[]): Set<number> {
  const found = new Set<number>();
  all.forEach((unit, place) => {
    if (ranges.some(([start, end]) => unit.start < end && unit.end > start)) found.add(place);
  });
  return found;
}

/** Characters of the chosen units; neighbours are one range. */
export function rangesOf(all: readonly Unit[], chosen: ReadonlySet<number>): Range[] {
  const found = all.flatMap((unit, place): Range[] => (chosen.has(place) ? [[unit.start, unit.end]] : []));
  return merged(found);
}
