// Metadata comes from anyone: only plain web addresses become links.
import type { Json } from '../types';

const LONGEST = 2000;

/** The address, or null for anything that is not http(s), or hides a name and password. */
export function link(value: Json | undefined): string | null {
  if (typeof value !== 'string' || value.length > LONGEST) return null;
  const text = value.trim();
  if (!/^https?:\/\//i.test(text)) return null;
  try {
    const url = new URL(text);
    const plain = url.protocol === 'http:' || url.protocol === 'https:';
    return plain && url.username === '' && url.password === '' ? url.href : null;
  } catch {
    return null;
  }
}

/** A value of metadata as text. */
export function told(value: Json): string {
  if (value === null) return '–';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
