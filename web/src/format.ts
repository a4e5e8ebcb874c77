// Numbers and words as people read them; the same everywhere.

/** A score with its sign, four figures. */
export function signed(value: number): string {
  if (!Number.isFinite(value)) return '–';
  return `${value < 0 ? '−' : '+'}${figure(Math.abs(value))}`;
}

/** Four figures, without an exponent where one can read the number without. */
export function figure(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.01) return '< 0.01 %';
  return `${Number(value.toPrecision(3))} %`;
}

export const count = (value: number): string => value.toLocaleString('en');

/** What work in a queue waits for; nothing where it is its turn. */
export function waits(before: number): string {
  if (before <= 0) return '';
  return `waits: ${count(before)} ${before === 1 ? 'request' : 'requests'} before it`;
}

/** Blanks and line breaks made visible where a token is nothing else. */
export function visible(token: string): string {
  return token.trim() === '' ? token.replaceAll('\n', '⏎').replaceAll('\t', '⇥') : token;
}
