// The points as pixels. A hundred thousand circles by canvas calls take far longer than a frame;
// writing the pixels into memory and handing over the picture does not.
import { pixel, rgbOf, shadeOf, STEPS, type Palette } from './colour';

export interface Look {
  /** What point of the map stands in the middle, and pixels of the canvas to one unit of the map. */
  x: number;
  y: number;
  scale: number;
}

/** Points in the order they are drawn, weak before strong, each with its shade. */
export interface Painted {
  order: Uint32Array;
  /** [points] from 0 (no score) over 1 … 2 * STEPS + 1. */
  shade: Uint8Array;
}

/** Shades and order of the points for these scores; without scores all are alike. */
export function paint(points: number, scores: Float32Array | null, end: number): Painted {
  const shade = new Uint8Array(points);
  const sizes = new Uint32Array(STEPS + 2);
  const sizeOf = (one: number): number => (one === 0 ? 0 : 1 + Math.abs(one - 1 - STEPS));
  for (let n = 0; n < points; n++) {
    const score = scores ? (scores[n] ?? NaN) : NaN;
    const made = Number.isFinite(score) ? 1 + STEPS + shadeOf(score, end) : 0;
    shade[n] = made;
    const size = sizeOf(made);
    sizes[size] = (sizes[size] as number) + 1;
  }
  const next = new Uint32Array(STEPS + 2);
  for (let n = 1; n < next.length; n++) next[n] = (next[n - 1] as number) + (sizes[n - 1] as number);
  const order = new Uint32Array(points);
  for (let n = 0; n < points; n++) {
    const size = sizeOf(shade[n] as number);
    order[next[size] as number] = n;
    next[size] = (next[size] as number) + 1;
  }
  return { order, shade };
}

/** The colour of every shade as pixels; without scores all points wear the first. */
export function shades(palette: Palette, scored: boolean): Uint32Array {
  const made = new Uint32Array(2 * STEPS + 2);
  made[0] = pixel(scored ? palette.none : palette.plain);
  for (let n = 1; n < made.length; n++) made[n] = pixel(rgbOf(n - 1 - STEPS, palette));
  return made;
}

const STRONG = 90; // shades from which points are drawn larger

/** Rows of a disc: for each row from -radius to radius how far it goes to both sides. */
function disc(radius: number): Int32Array {
  const whole = Math.floor(radius);
  const made = new Int32Array(2 * whole + 1);
  for (let row = -whole; row <= whole; row++)
    made[row + whole] = Math.floor(Math.sqrt(Math.max(0, radius ** 2 - row ** 2)));
  return made;
}

/** The radius of points in pixels of the canvas: more room, larger points. */
export function radiusOf(points: number, zoom: number, ratio: number): number {
  const base = points > 50_000 ? 1 : points > 10_000 ? 1.5 : points > 2_000 ? 2.3 : 3.2;
  return Math.min(7, base * Math.pow(Math.max(1, zoom), 0.4)) * ratio;
}

export interface Canvas {
  pixels: Uint32Array;
  width: number;
  height: number;
}

/** Fill a disc around a pixel; what lies outside the canvas is left out. */
function stamp(on: Canvas, px: number, py: number, form: Int32Array, colour: number): void {
  const { pixels, width, height } = on;
  const reach = (form.length - 1) / 2;
  if (px < -reach || py < -reach || px >= width + reach || py >= height + reach) return;
  for (let row = 0; row < form.length; row++) {
    const line = py + row - reach;
    if (line < 0 || line >= height) continue;
    const half = form[row] as number;
    const end = line * width + Math.min(width - 1, px + half);
    for (let at = line * width + Math.max(0, px - half); at <= end; at++) pixels[at] = colour;
  }
}

export interface Points {
  x: Float32Array;
  y: Float32Array;
  painted: Painted;
  /** Places of those that are chosen: drawn last, with a ring. */
  chosen: ArrayLike<number>;
}

/** Draw all points on the canvas, which is cleared. Points without a place (NaN) are not drawn. */
export function draw(
  on: Canvas,
  { x, y, painted, chosen }: Points,
  colours: Uint32Array,
  ring: number,
  look: Look,
  radius: number,
): void {
  on.pixels.fill(0);
  const { order, shade } = painted;
  const left = on.width / 2 - look.x * look.scale;
  const top = on.height / 2 + look.y * look.scale;
  const [small, strong, around] = [disc(radius), disc(radius * 1.35), disc(radius * 1.35 + 2)];
  const px = (n: number): number => Math.round(left + (x[n] as number) * look.scale);
  const py = (n: number): number => Math.round(top - (y[n] as number) * look.scale);
  for (let at = 0; at < order.length; at++) {
    const n = order[at] as number;
    const one = shade[n] as number;
    const form = one !== 0 && Math.abs(one - 1 - STEPS) > STRONG ? strong : small;
    stamp(on, px(n), py(n), form, colours[one] as number);
  }
  for (let at = 0; at < chosen.length; at++) {
    const n = chosen[at] as number;
    stamp(on, px(n), py(n), around, ring);
  }
  for (let at = 0; at < chosen.length; at++) {
    const n = chosen[at] as number;
    stamp(on, px(n), py(n), strong, colours[shade[n] as number] as number);
  }
}
