// Examples of the corpus from the server: by a filter, page by page; and scores by their key.
import { get, getBytes } from '../../api';
import type { Answer, Json } from '../../types';

export interface Document {
  id: string;
  position: number;
  text: string;
  metadata: Record<string, Json>;
}

export interface Page {
  total: number;
  rows: Document[];
}

/** What the job "ask" gives. */
export interface Asked {
  answer: Answer;
  /** Names the scores of all examples. */
  scores: string | null;
}

/** Of an answer whose words and chance nobody reads: it comes sooner without them. */
export const QUICK = { tokens: false, calibrate: false };

const PAGE = 1000; // examples fetched at a time

const SHORT = 400; // characters that the server gives of a text in a list
/** Whether a text of a list goes on. */
export const isCut = ({ text }: Document): boolean => Array.from(text).length >= SHORT;

const path = (index: string): string => `indexes/${encodeURIComponent(index)}/documents`;

export function documents(index: string, filter: string, offset = 0, limit = 50): Promise<Page> {
  const asked = new URLSearchParams({ filter, offset: String(offset), limit: String(limit) });
  return get<Page>(`${path(index)}?${asked}`);
}

export function document(index: string, position: number): Promise<Document> {
  return get<Document>(`${path(index)}/${position}?around=0`);
}

/** All that pass, up to a number; `told` hears how many there are so far. */
export async function all(
  index: string,
  filter: string,
  most: number,
  told?: (done: number, total: number) => void,
): Promise<Document[]> {
  const found: Document[] = [];
  for (;;) {
    const { total, rows } = await documents(index, filter, found.length, PAGE);
    found.push(...rows);
    told?.(found.length, Math.min(total, most));
    if (rows.length === 0 || found.length >= total || found.length >= most) return found.slice(0, most);
  }
}

/** Text as the filter takes it literally. */
export const phrase = (text: string): string =>
  `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;

/** A filter for just this value of a column. */
export const isJust = (column: string, value: string): string =>
  `${/^\w+$/.test(column) ? column : phrase(column)}=${phrase(value)}`;

let kept: { key: string; scores: Promise<Float32Array> } | null = null;

/** The scores of all examples by position; NaN where there is none. The last vector is kept. */
export function scoresOf(key: string): Promise<Float32Array> {
  if (kept?.key !== key) {
    const scores = getBytes(`scores?key=${encodeURIComponent(key)}`).then(
      (bytes) => new Float32Array(bytes),
    );
    scores.catch(() => (kept = null));
    kept = { key, scores };
  }
  return kept.scores;
}
