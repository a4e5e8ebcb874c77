// Where one looks at the map from: pure steps, in pixels of the screen and units of the map.
import { bounds, type Point } from './lasso';
import type { Look } from './raster';

export interface Box {
  width: number;
  height: number;
}

const MARGIN = 0.94; // of the box that the map fills at first

/** All points in sight. */
export function fit(x: Float32Array, y: Float32Array, { width, height }: Box): Look {
  const [left, right] = bounds(x);
  const [low, high] = bounds(y);
  const scale = MARGIN * Math.min(width / (right - left || 1), height / (high - low || 1));
  return { x: (left + right) / 2, y: (low + high) / 2, scale };
}

export function toMap(look: Look, { width, height }: Box, px: number, py: number): Point {
  return [look.x + (px - width / 2) / look.scale, look.y - (py - height / 2) / look.scale];
}

export function toScreen(look: Look, { width, height }: Box, x: number, y: number): Point {
  return [width / 2 + (x - look.x) * look.scale, height / 2 - (y - look.y) * look.scale];
}

/** Nearer by a factor, with what is under (px, py) staying there. */
export function zoom(look: Look, box: Box, factor: number, px: number, py: number): Look {
  const [x, y] = toMap(look, box, px, py);
  const scale = look.scale * factor;
  return {
    x: x - (px - box.width / 2) / scale,
    y: y + (py - box.height / 2) / scale,
    scale,
  };
}

/** The map follows a drag of so many pixels. */
export const pan = (look: Look, dx: number, dy: number): Look => ({
  ...look,
  x: look.x - dx / look.scale,
  y: look.y + dy / look.scale,
});

/** A look whatever the size of the window: the middle, and how many times nearer than the whole. */
export interface Relative {
  x: number;
  y: number;
  times: number;
}

/** The look in an address: "x,y,times"; null where it says nothing. */
export function lookOf(text: string | undefined): Relative | null {
  const [x, y, times] = (text ?? '').split(',').map(Number);
  if (x === undefined || y === undefined || times === undefined) return null;
  if (![x, y, times].every(Number.isFinite) || times <= 0 || times > 1e5) return null;
  return { x, y, times };
}

export const lookText = ({ x, y, times }: Relative): string =>
  [x, y, times].map((one) => Number(one.toPrecision(4))).join(',');
