// An answer as Markdown, to paste into an issue or a page. All of it is somebody's text and stands
// there as it is; bold are only the words of an example that make it evidence, and they are what is
// shown of a long one.
import type { Answer, Evidence } from './types';
import { count, percent } from './format';
import { merged, type Range } from './parts/characters';
import { marksOf, pieces } from './parts/pieces';
import { byInfluence, scoreOf } from './parts/words';

const SHOWN = 800; // characters of an example
const HEADING = 500;
const MARKS = /[\\`*_[\]<>|#~$&]/g;

/** Text that stands in Markdown as it is: one line, no mark-up, no control characters. */
export const markdownText = (text: string): string => flat(text).trim();

/** The same with its blanks at the ends, each as one. */
function flat(text: string): string {
  const plain = text.replace(/[\u0000-\u001f\u007f\u2028\u2029]+/g, ' ').replace(/ {2,}/g, ' ');
  // A direction set by the text would turn round what stands after it.
  return plain.replace(/[\u202a-\u202e\u2066-\u2069]/g, '').replace(MARKS, '\\$&');
}

const leftOut = (characters: number): string => (characters > 0 ? `… (${count(characters)} characters left out) …` : '');

/** A text on one line, marked words bold; of a long one what is around them, and how much not. */
export function passage(text: string, marks: readonly Range[] = [], most = SHOWN): string {
  const bold = merged(marks);
  const told: string[] = [];
  let at = 0;
  for (const [start, end] of pieces(text, marks, most)) {
    told.push(leftOut(start - at), emphasised(text, start, end, bold));
    at = end;
  }
  return [...told, leftOut(text.length - at)].filter((part) => part !== '').join(' ');
}

/** The units [from, to), those in `bold` between two stars each side. */
function emphasised(text: string, from: number, to: number, bold: readonly Range[]): string {
  let made = '';
  let at = from;
  for (const [first, last] of bold) {
    const start = Math.max(first, from);
    // Markdown makes nothing bold that begins or ends with a blank or a mark of punctuation.
    const inner = /[\p{L}\p{N}](?:.*[\p{L}\p{N}])?/su.exec(text.slice(start, Math.max(start, Math.min(last, to))));
    if (!inner) continue;
    made += `${flat(text.slice(at, start + inner.index))}**${flat(inner[0])}**`;
    at = start + inner.index + inner[0].length;
  }
  return (made + flat(text.slice(at, to))).trim();
}

/** A block of code that its own content cannot end. */
function fenced(code: string): string {
  const longest = Math.max(2, ...[...code.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}\n${code}\n${fence}`;
}

function table(answer: Answer, items: Evidence[]): string[] {
  const rows = items.map((one, rank) => {
    const score = one.score === null ? '–' : scoreOf(one.score, byInfluence(answer));
    const above = one.percentile === null ? '–' : `${one.percentile.toFixed(2)} %`;
    return `| ${rank + 1} | ${score} | ${above} | ${markdownText(one.id)} | ${passage(one.text, marksOf(one))} |`;
  });
  return ['| rank | score | scores lower | example | text |', '|---:|---:|---:|---|---|', ...rows];
}

export function markdown(answer: Answer): string {
  const { summary } = answer.picture ?? answer.judgement;
  const chance = answer.probability === null ? '' : ` Probability ${percent(answer.probability)}.`;
  const shape = `${markdownText(answer.title)}; score in ${markdownText(answer.unit)}`;
  const lines = [
    `### ${passage(answer.query, [], HEADING)}`,
    '',
    `${shape}; ${count(answer.examples)} examples.${chance}`,
    '',
    markdownText(summary),
    '',
  ];
  if (answer.proponents.length) lines.push('**Support it**', '', ...table(answer, answer.proponents), '');
  if (answer.opponents.length) lines.push('**Oppose it**', '', ...table(answer, answer.opponents), '');
  for (const note of answer.notes) lines.push(`- ${markdownText(note)}`);
  if (answer.reproduce.command) lines.push('', 'Again:', '', fenced(answer.reproduce.command));
  return `${lines.join('\n').trim()}\n`;
}
