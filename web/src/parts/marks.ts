// Which words of an example carry its score. Tokens are laid along the text one after the other;
// what a tokenizer added (special tokens, pieces of one character) takes no room.
import type { Range } from './characters';

const AHEAD = 60; // characters searched for a token that does not follow at once
const LONGEST_WORD = 40; // what is longer (a script without spaces) is no word
const WORD = /[\p{L}\p{M}\p{N}_]+/gu;

/** Characters [start, end) of a text, and the share of the score that they carry. */
export interface Mark {
  start: number;
  end: number;
  share: number;
}

/** Where each token stands; tokens that cannot be found are left out. */
export function place(text: string, tokens: readonly (readonly [string, number])[]): Mark[] {
  const marks: Mark[] = [];
  let at = 0;
  for (const [whole, share] of tokens) {
    let token = whole;
    let start = token !== '' && text.startsWith(token, at) ? at : -1;
    const bare = token.trim();
    if (start < 0 && bare !== '') {
      token = bare;
      const found = text.slice(at, at + AHEAD + bare.length).indexOf(bare);
      start = found < 0 ? -1 : at + found;
    }
    if (start < 0) continue;
    at = start + token.length;
    marks.push({ start, end: at, share });
  }
  return marks;
}

/** Marks summed over words; a mark in no word, or in a very long one, stays by itself. */
export function words(text: string, marks: readonly Mark[]): Mark[] {
  const found = [...text.matchAll(WORD)].map((one): Range => [one.index, one.index + one[0].length]);
  const sums = new Map<number, Mark>();
  let next = 0;
  for (const mark of marks) {
    const [start, end] = trimmed(text, mark);
    while (next < found.length && (found[next]?.[1] ?? 0) <= start) next++;
    const word = found[next];
    const inside = word && word[0] <= start && word[1] - word[0] <= LONGEST_WORD;
    const key = inside ? word[0] : start;
    const sum = sums.get(key) ?? { start: key, end: key, share: 0 };
    sum.end = Math.max(sum.end, end, inside ? word[1] : end);
    sum.share += mark.share;
    sums.set(key, sum);
  }
  return [...sums.values()].filter((one) => one.end > one.start);
}

function trimmed(text: string, { start, end }: Mark): Range {
  const piece = text.slice(start, end);
  const lead = piece.length - piece.trimStart().length;
  return lead === piece.length ? [start, end] : [start + lead, start + piece.trimEnd().length];
}

/** The strongest words of either sign, strongest first. */
export function strongest(text: string, marks: readonly Mark[], most: number): Mark[] {
  const sorted = words(text, marks).sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
  const least = 0.1 * Math.abs(sorted[0]?.share ?? 0);
  const told = sorted.filter((one) => /[\p{L}\p{N}]/u.test(text.slice(one.start, one.end)));
  return told.filter((one) => Math.abs(one.share) > least).slice(0, most);
}

/** The stretch of at most about `limit` characters with the most of the score (or the first of the
 * spans), cut at white space where some is near. */
export function excerpt(text: string, marks: readonly Mark[], spans: readonly Range[], limit: number): Range {
  if (text.length <= limit) return [0, text.length];
  let start = Math.max(0, (spans[0]?.[0] ?? 0) - limit / 4);
  let best = 0;
  let weight = 0;
  let last = 0;
  marks.forEach((mark, first) => {
    // What counts is the middle half, so that there is something to read on either side.
    while (last < marks.length && (marks[last]?.start ?? 0) < mark.start + limit / 2)
      weight += Math.abs(marks[last++]?.share ?? 0);
    if (weight > best * (1 + 1e-9)) [best, start] = [weight, Math.max(0, mark.start - limit / 4)];
    weight -= Math.abs(marks[first]?.share ?? 0);
  });
  return atWords(text, Math.floor(Math.min(start, text.length - limit)), limit);
}

/** A stretch, its ends moved inwards to white space where some is near. */
export function atWords(text: string, from: number, limit: number): Range {
  let [start, end] = [from, from + limit];
  if (start > 0) {
    const space = /\s/.exec(text.slice(start, start + 30));
    start += space ? space.index + 1 : 0;
  }
  if (end < text.length) {
    const space = /\s(?=\S*$)/.exec(text.slice(end - 30, end));
    if (space) end += space.index - 30;
  }
  return [whole(text, start), whole(text, end)];
}

/** Never cut a character in two. */
function whole(text: string, at: number): number {
  const low = text.charCodeAt(at) >= 0xdc00 && text.charCodeAt(at) <= 0xdfff;
  return low && at > 0 && text.charCodeAt(at - 1) >= 0xd800 && text.charCodeAt(at - 1) <= 0xdbff ? at - 1 : at;
}
