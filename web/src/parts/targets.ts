// The explained tokens as words: parts of a score add up, so a word's part is the sum of its tokens'.
import type { Answer } from '../types';
import { units } from './units';
import { quoted } from './words';

export interface Target {
  text: string;
  /** Places in `answer.target`. */
  places: number[];
}

export function targetWords(target: readonly string[]): Target[] {
  const tokens = target.map((text, place) => ({ text, start: place, end: place + 1, probability: null }));
  return units(tokens, 'words').map((one) => ({ text: one.text, places: one.tokens }));
}

/** The words of an answer's target. In a contrast those of the other output come last: they count
 * against it. */
export function targetsOf(answer: Answer): (Target & { label: string })[] {
  let at = 0;
  return targetWords(answer.target).map((one) => {
    const other = answer.instead_of !== null && at >= answer.completion.length;
    at += one.text.length;
    return { ...one, label: other ? `not ${quoted(one.text)}` : quoted(one.text) };
  });
}

export const sumOf = (values: readonly number[], places: readonly number[]): number =>
  places.reduce((sum, place) => sum + (values[place] ?? 0), 0);

export const same = (one: readonly number[] | null, other: readonly number[]): boolean =>
  one !== null && one.length === other.length && one.every((value, place) => value === other[place]);
