// Words for what an answer holds: the same in every part that shows it.
import { figure, signed } from '../format';
import type { Answer, Evidence, KindName } from '../types';

export const KIND_NAMES: Record<KindName, string> = {
  influence: 'Influence',
  verbatim: 'Word for word',
  lexical: 'Shared words',
  semantic: 'Similar meaning',
};

/** What a kind of evidence does say, and what it does not. */
export const KIND_MEANS: Record<KindName, { does: string; not: string }> = {
  influence: {
    does: 'Training on this example moved the model towards these words (or away from them), as its gradients tell.',
    not: 'It is an estimate, not an experiment: the example need not hold the words, and only a retraining shows what the model would say without it.',
  },
  verbatim: {
    does: 'The example holds the same words in the same order.',
    not: 'A match is not a cause: the model may have the words from elsewhere, or may have put them together anew.',
  },
  lexical: {
    does: 'The example shares words with the output, rare words counting most.',
    not: 'It does not look at the model at all. A cause need not share any word.',
  },
  semantic: {
    does: 'The example means something similar, as another model reads it.',
    not: 'Similarity is not a cause, and the model that reads is not the one that answered.',
  },
};

/** How an example's text supports the output, in a few more words than the label. */
export const SUPPORT_MEANS: Record<string, string> = {
  'states the fact': 'holds both the subject of the prompt and the words asked about',
  'shares subject': 'is about the same subject, without the words asked about',
  'shares object': 'holds the words asked about, of another subject',
  'shares template': 'says another thing in the same form of words',
  'shares names or style': 'shares names or manner only',
  'none of these': 'shares nothing of the kind with the output',
};

export interface Headline {
  tone: 'copied' | 'stated' | 'shaped' | 'nothing' | 'unjudged';
  title: string;
  means: string;
}

/** What it comes down to, by the picture or, without one, by the judgement. */
export function headline({ picture, judgement }: Answer): Headline {
  const kind = picture?.kind ?? (judgement.stands_out === null ? 'unjudged' : judgement.stands_out ? 'shaped' : 'nothing');
  if (kind === 'copied')
    return { tone: 'copied', title: 'Copied', means: 'A long run of these words stands in the training data, far longer than chance would have it.' };
  if (kind === 'stated')
    return { tone: 'stated', title: 'Stated', means: 'An example of the training data holds both what was asked about and these words. Read there whether it says so.' };
  if (kind === 'shaped' && picture)
    return { tone: 'shaped', title: 'Shaped', means: 'No example was found that says it, but training on some of them moved the model towards it.' };
  if (kind === 'shaped')
    return { tone: 'shaped', title: 'Something stands out', means: 'The best examples score higher than those of random outputs.' };
  if (kind === 'unjudged')
    return { tone: 'unjudged', title: 'Not judged', means: 'There is no measure of chance here: read the examples as the nearest, not as the source.' };
  if (judgement.stands_out === null)
    return {
      tone: 'nothing',
      title: 'Nothing stands out',
      means: 'Nothing here is long or close enough to be called copied or stated. Whether chance alone would give as much was not looked at.',
    };
  return {
    tone: 'nothing',
    title: 'Nothing stands out',
    means: 'Random outputs find examples that score as high. Those below are the nearest that there are; do not take them for the source.',
  };
}

/** The sentence without the word that already stands above it. */
export function said(summary: string): string {
  const rest = summary.replace(/^(Copied|Stated|Shaped|Nothing stands out|Something stands out): /, '');
  return rest.charAt(0).toUpperCase() + rest.slice(1);
}

/** "+0.2455 cosine"; the unit without what stands in brackets. */
export const unitOf = (unit: string): string => unit.replace(/ \(.*$/, '');

/** Signs are influence's alone: an order by other kinds knows no for and against. */
export function scoreOf(score: number | null, influence: boolean): string {
  if (score === null) return 'no score';
  return influence ? signed(score) : figure(score);
}

/** Whether scores are those of a method of influence. */
export const byInfluence = (answer: Answer): boolean => Object.keys(answer.method).length > 0;

/** How many examples score lower, in words. */
export function percentileOf({ percentile }: Evidence): string {
  if (percentile === null) return 'not scored here';
  if (percentile === 0) return 'lowest of all examples';
  // Never "above 100 %": the example itself is not lower.
  if (percentile > 99.99) return 'above over 99.99 % of examples';
  if (percentile < 0.01) return 'under 0.01 % of examples are lower';
  const share = `${percentile > 99 || percentile < 1 ? percentile.toFixed(2) : percentile.toFixed(1)} %`;
  return percentile < 50 ? `${share} of examples are lower` : `above ${share} of examples`;
}

/** A score of a kind, short. */
export const short = (score: number): string => figure(Number(score.toPrecision(3))).replace('-', '−');

/** A token as one reads it: its blanks kept visible where it is nothing else. */
export function quoted(text: string): string {
  const bare = text.trim();
  if (bare !== '') return `“${bare}”`;
  if (text === '') return '(part of a character)';
  return text.includes('\n') ? '(line break)' : '(blank)';
}
