// What changed from one text to another, word by word, and where: the ranges that are then explained.
// Blanks belong to the word before which they stand, as tokens of language models have it, so that
// joining the pieces gives the texts again, to the character.

export interface Piece {
  text: string;
  kind: 'same' | 'removed' | 'added';
}

export interface Difference {
  pieces: Piece[];
  /** Characters [start, end) of the first text that are not in the second; by code point. */
  removed: [number, number][];
  added: [number, number][];
}

const MOST = 4_000_000; // cells of the table that finds the longest common sequence

/** Words with the blanks before them; blanks at the end stand alone. */
export function wordsOf(text: string): string[] {
  return text.match(/\s*[\p{Letter}\p{Number}\p{Mark}_'’-]+|\s*[^\s]|\s+$/gu) ?? [];
}

export function difference(before: string, after: string): Difference {
  const [a, b] = [wordsOf(before), wordsOf(after)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  const room = Math.min(a.length, b.length) - start;
  while (end < room && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const pieces: Piece[] = [];
  put(pieces, 'same', a.slice(0, start));
  middle(pieces, a.slice(start, a.length - end), b.slice(start, b.length - end));
  put(pieces, 'same', a.slice(a.length - end));
  return { pieces, removed: ranges(pieces, 'removed'), added: ranges(pieces, 'added') };
}

function put(pieces: Piece[], kind: Piece['kind'], words: string[]): void {
  if (words.length === 0) return;
  const last = pieces.at(-1);
  if (last?.kind === kind) last.text += words.join('');
  else pieces.push({ kind, text: words.join('') });
}

/** The part between the common beginning and end, by the longest common sequence of words. */
function middle(pieces: Piece[], a: string[], b: string[]): void {
  const width = b.length + 1;
  if ((a.length + 1) * width > MOST) {
    put(pieces, 'removed', a);
    put(pieces, 'added', b);
    return;
  }
  const common = new Uint32Array((a.length + 1) * width);
  const at = (i: number, j: number): number => common[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i * width + j] =
        a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const [left, right] = [a[i], b[j]];
    if (left !== undefined && left === right) {
      put(pieces, 'same', [left]);
      i++;
      j++;
    } else if (left !== undefined && (right === undefined || at(i + 1, j) >= at(i, j + 1))) {
      put(pieces, 'removed', [left]);
      i++;
    } else if (right !== undefined) {
      put(pieces, 'added', [right]);
      j++;
    }
  }
}

function ranges(pieces: Piece[], kind: Piece['kind']): [number, number][] {
  const found: [number, number][] = [];
  let at = 0;
  for (const piece of pieces) {
    if (piece.kind !== 'same' && piece.kind !== kind) continue;
    const length = Array.from(piece.text).length;
    if (piece.kind === kind) found.push([at, at + length]);
    at += length;
  }
  return found;
}

/** The words of these ranges, to be named in a heading. */
export function wordsAt(text: string, where: [number, number][]): string {
  const characters = Array.from(text);
  return where.map(([from, to]) => characters.slice(from, to).join('').trim()).join(' … ');
}
