// Scores as colours: blue supports, orange opposes, grey is near zero. The scale is the same on both
// sides of zero and ends where all but a few scores lie, so that one outlier does not grey the rest.

export type Rgb = readonly [number, number, number];

export interface Palette {
  supports: Rgb;
  opposes: Rgb;
  zero: Rgb;
  /** Points without a score, and all points where no query gives scores. */
  none: Rgb;
  plain: Rgb;
  /** Around chosen points. */
  ring: Rgb;
}

export const LIGHT: Palette = {
  supports: [20, 78, 158],
  opposes: [190, 84, 0],
  zero: [205, 206, 203],
  none: [226, 226, 222],
  plain: [104, 116, 132],
  ring: [24, 25, 28],
};
export const DARK: Palette = {
  supports: [120, 190, 255],
  opposes: [255, 164, 74],
  zero: [82, 87, 94],
  none: [52, 56, 62],
  plain: [134, 146, 160],
  ring: [245, 245, 240],
};

const SHARE = 0.995; // of the scores, by size, that lie within the scale

/** Where the scale ends: a size of score; 0 where there is nothing to show. */
export function endOf(scores: Float32Array, share = SHARE): number {
  const sizes = new Float32Array(scores.length);
  let known = 0;
  for (const score of scores) if (Number.isFinite(score)) sizes[known++] = Math.abs(score);
  if (known === 0) return 0;
  const sorted = sizes.subarray(0, known).sort();
  return sorted[Math.min(known - 1, Math.floor(share * known))] || (sorted[known - 1] as number);
}

export const STEPS = 127; // shades on each side of zero

/** The shade of a score, from -STEPS to STEPS, in proportion. */
export function shadeOf(score: number, end: number): number {
  if (end === 0) return 0;
  const share = Math.min(1, Math.abs(score) / end);
  return Math.sign(score) * Math.round(share * STEPS);
}

export function mix(from: Rgb, to: Rgb, share: number): Rgb {
  const at = (n: 0 | 1 | 2): number => Math.round(from[n] + (to[n] - from[n]) * share);
  return [at(0), at(1), at(2)];
}

export function rgbOf(shade: number, palette: Palette): Rgb {
  const end = shade < 0 ? palette.opposes : palette.supports;
  return mix(palette.zero, end, Math.abs(shade) / STEPS);
}

/** Rgb as the four bytes of a pixel, opaque, in the order that this machine's memory has. */
export function pixel([red, green, blue]: Rgb): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
