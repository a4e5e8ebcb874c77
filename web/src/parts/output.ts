// Where verbatim spans lie in prompt and output together. A short output is searched with its
// prompt, a long one alone, so only `in_output` says where a span is; how far it reaches into the
// prompt follows from its length.
import type { Answer } from '../types';
import { Characters, type Range } from './characters';

/** Ranges in units of `prompt + completion`, one for each span. */
export function spanRanges({ prompt, completion, spans }: Answer): Range[] {
  const characters = new Characters(prompt + completion);
  const before = new Characters(prompt).length;
  return spans.map(({ start, end, text, in_output: [from, to] }) => {
    const whole = characters.toUnits([before + to - (end - start), before + to]);
    if (characters.text.slice(...whole) === text) return whole;
    // A prompt of messages is not the text that was searched.
    return characters.toUnits([before + from, before + to]);
  });
}

/** The explained part of the completion, in units of it; none where all of it is, or nothing tells
 * which: the words as asked where they are known, else where the target stands once. */
export function explained({ completion, target }: Answer, words?: readonly Range[]): Range[] {
  const characters = new Characters(completion);
  if (words?.length) return words.map((range) => characters.toUnits(range));
  const text = target.join('');
  const at = text === '' || text === completion ? -1 : completion.indexOf(text);
  return at < 0 || completion.includes(text, at + 1) ? [] : [[at, at + text.length]];
}
