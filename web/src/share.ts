// What leaves the app: links (all of the screen, never a token), files (`markdown.ts` has Markdown).
// And the reverse: the query that a link names, read with care.
import type { Answer, IndexInfo, Query } from './types';

/** The link of this screen: without what stands behind "?", where a first visit has its token. */
export function linkOf(place: { origin: string; pathname: string; hash: string }): string {
  return `${place.origin}${place.pathname}${place.hash}`;
}

type Ranges = [number, number][];

/** One range "0-5" that lies in a text of this length; null where it does not. */
export function wordsOf(text: string, length: number): [number, number] | null {
  const [, from, to] = /^(\d{1,9})-(\d{1,9})$/.exec(text.trim()) ?? [];
  const range: [number, number] = [Number(from), Number(to)];
  return range[0] < range[1] && range[1] <= length ? range : null;
}

/** "0-5,9-12" (characters as Python counts them, by code point) as ranges in order, without overlap; what is no range of this text is left out. */
export function rangesOf(text: string | undefined, length: number): Ranges {
  const found: Ranges = [];
  for (const part of (text ?? '').split(',')) {
    const range = wordsOf(part, length);
    if (range) found.push(range);
  }
  found.sort((a, b) => a[0] - b[0]);
  return found.reduce<Ranges>((kept, [from, to]) => {
    const last = kept.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else kept.push([from, to]);
    return kept;
  }, []);
}

export const rangesText = (ranges: Ranges): string =>
  ranges.map(([from, to]) => `${from}-${to}`).join(',');

/** The query in the address; null where there is none. */
export function queryOf(values: Record<string, string>): Query | null {
  const completion = values['completion'] ?? '';
  if (completion === '') return null;
  const query: Query = { prompt: values['prompt'] ?? '', completion };
  if (values['instead_of']) query.instead_of = values['instead_of'];
  const words = rangesOf(values['words'], Array.from(completion).length);
  if (words.length > 0) query.words = words;
  return query;
}

export function addressOf(query: Query): Record<string, string | null> {
  return {
    prompt: query.prompt,
    completion: query.completion,
    words: query.words?.length ? rangesText(query.words) : null,
    instead_of: query.instead_of ?? null,
  };
}

/** The index that the address names, or the first. */
export function indexOf(indexes: IndexInfo[], name: string | undefined): IndexInfo | undefined {
  return indexes.find((one) => one.name === name) ?? indexes[0];
}

/** A cell of CSV that a spreadsheet takes for text, never for a formula. */
export function cell(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number') return String(value);
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const safe = /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
  return /[",\r\n']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function csv(rows: Record<string, unknown>[]): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const lines = rows.map((row) => names.map((name) => cell(row[name])).join(','));
  return `${[names.map(cell).join(','), ...lines].join('\r\n')}\r\n`;
}

export function answerRows(answer: Answer): Record<string, unknown>[] {
  const sides = [
    ['supports', answer.proponents],
    ['opposes', answer.opponents],
  ] as const;
  return sides.flatMap(([side, items]) =>
    items.map((one, place) => ({
      side,
      rank: place + 1,
      id: one.id,
      kind: one.kind,
      score: one.score,
      unit: answer.unit,
      percentile: one.percentile,
      support: one.support,
      text: one.text,
      ...Object.fromEntries(Object.entries(one.metadata).map(([k, v]) => [`metadata.${k}`, v])),
    })),
  );
}

/** A name for a file, of what was asked. */
export function fileName(said: string, ending: string): string {
  const words = said.normalize('NFKD').replace(/[^\p{Letter}\p{Number}]+/gu, '-');
  const short = Array.from(words.replace(/^-+|-+$/g, '').toLowerCase()).slice(0, 60).join('');
  return `${short || 'headwater'}.${ending}`;
}

export function download(name: string, content: Blob | string, type = 'text/plain'): void {
  const file = content instanceof Blob ? content : new Blob([content], { type });
  const link = document.createElement('a');
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Put text on the clipboard; false where the browser does not let us. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByHand(text);
  }
}

/** For pages served without TLS from another machine, where there is no clipboard to write to. */
function copyByHand(text: string): boolean {
  const box = document.createElement('textarea');
  box.value = text;
  box.setAttribute('aria-hidden', 'true');
  const held = document.activeElement;
  document.body.append(box);
  box.select();
  const done = document.execCommand('copy');
  box.remove();
  if (held instanceof HTMLElement) held.focus();
  return done;
}

const DRAWN = [
  'fill',
  'fill-opacity',
  'stroke',
  'stroke-width',
  'stroke-opacity',
  'stroke-dasharray',
  'stroke-linejoin',
  'paint-order',
  'opacity',
  'font-family',
  'font-size',
  'font-weight',
  'text-anchor',
  'dominant-baseline',
];

/** A chart as a file of its own: what the page's styles gave it is written into it. */
export function svgFile(svg: SVGSVGElement, title = ''): string {
  const made = svg.cloneNode(true) as SVGSVGElement;
  const from = [svg, ...svg.querySelectorAll('*')];
  const to = [made, ...made.querySelectorAll('*')];
  from.forEach((element, place) => {
    const style = getComputedStyle(element);
    const above = place && element.parentElement ? getComputedStyle(element.parentElement) : null;
    const target = to[place];
    for (const name of DRAWN) {
      const value = style.getPropertyValue(name);
      // What is inherited need not be said again; opacity is not inherited.
      const said = name === 'opacity' ? '1' : above?.getPropertyValue(name);
      if (value !== said) target?.setAttribute(name, value);
      else target?.removeAttribute(name);
    }
    for (const name of ['class', 'style', 'tabindex', 'role', 'aria-hidden'])
      target?.removeAttribute(name);
  });
  const box = svg.getBoundingClientRect();
  made.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  made.setAttribute('width', String(Math.round(box.width)));
  made.setAttribute('height', String(Math.round(box.height)));
  const draw = (name: string): Element => document.createElementNS('http://www.w3.org/2000/svg', name);
  const ground = draw('rect');
  ground.setAttribute('width', '100%');
  ground.setAttribute('height', '100%');
  const sheet = svg.closest('.sheet') ?? svg.closest('.headwater') ?? document.body;
  ground.setAttribute('fill', getComputedStyle(sheet).backgroundColor);
  const words = draw('title');
  words.textContent = title || svg.getAttribute('aria-label') || '';
  made.prepend(words, ground);
  return new XMLSerializer().serializeToString(made);
}
