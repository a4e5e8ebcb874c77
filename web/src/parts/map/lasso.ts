// Which points a hand-drawn line encloses, and which point lies nearest: over plain typed arrays.

export type Point = readonly [number, number];

/** Whether a point lies inside, by the even-odd rule. */
export function inside(x: number, y: number, line: readonly Point[]): boolean {
  let within = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [xi, yi] = line[i] as Point;
    const [xj, yj] = line[j] as Point;
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

/** Places of the points inside a closed line; fewer than three corners enclose nothing. */
export function enclosed(x: Float32Array, y: Float32Array, line: readonly Point[]): number[] {
  if (line.length < 3) return [];
  const xs = line.map(([one]) => one);
  const ys = line.map(([, one]) => one);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const found: number[] = [];
  for (let n = 0; n < x.length; n++) {
    const [px, py] = [x[n] as number, y[n] as number];
    if (px < left || px > right || py < low || py > high) continue;
    if (inside(px, py, line)) found.push(n);
  }
  return found;
}

/** Points sorted into squares, so that the nearest one is found without looking at all. */
export class Squares {
  readonly #side: number;
  readonly #first: Uint32Array;
  readonly #order: Uint32Array;
  readonly #low: Point;
  readonly #wide: Point;

  constructor(
    readonly x: Float32Array,
    readonly y: Float32Array,
  ) {
    const [left, right] = bounds(x);
    const [low, high] = bounds(y);
    this.#low = [left, low];
    this.#wide = [right - left || 1, high - low || 1];
    this.#side = Math.max(1, Math.floor(Math.sqrt(x.length / 4)));
    this.#first = new Uint32Array(this.#side ** 2 + 1);
    for (let n = 0; n < x.length; n++) this.#bump(this.#square(n) + 1);
    for (let n = 1; n < this.#first.length; n++) this.#bump(n, this.#first[n - 1]);
    const next = this.#first.slice();
    this.#order = new Uint32Array(x.length);
    for (let n = 0; n < x.length; n++) {
      const square = this.#square(n);
      this.#order[next[square] as number] = n;
      next[square] = (next[square] as number) + 1;
    }
  }

  #bump(place: number, by = 1): void {
    this.#first[place] = (this.#first[place] as number) + by;
  }

  #cell(value: number, axis: 0 | 1): number {
    const share = (value - this.#low[axis]) / this.#wide[axis];
    return Math.min(this.#side - 1, Math.max(0, Math.floor(share * this.#side)));
  }

  #square(n: number): number {
    return this.#cell(this.y[n] as number, 1) * this.#side + this.#cell(this.x[n] as number, 0);
  }

  /** The nearest point no further than `reach` (in the points' own measure); -1 for none. */
  nearest(px: number, py: number, reach: number): number {
    const [left, right] = [this.#cell(px - reach, 0), this.#cell(px + reach, 0)];
    const [low, high] = [this.#cell(py - reach, 1), this.#cell(py + reach, 1)];
    let [best, distance] = [-1, reach ** 2];
    for (let row = low; row <= high; row++)
      for (let column = left; column <= right; column++) {
        const square = row * this.#side + column;
        const to = this.#first[square + 1] as number;
        for (let at = this.#first[square] as number; at < to; at++) {
          const n = this.#order[at] as number;
          const here = ((this.x[n] as number) - px) ** 2 + ((this.y[n] as number) - py) ** 2;
          if (here <= distance) [best, distance] = [n, here];
        }
      }
    return best;
  }
}

export function bounds(values: Float32Array): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}
