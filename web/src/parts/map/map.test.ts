import { expect, test } from 'vitest';
import { DARK, endOf, LIGHT, rgbOf, shadeOf, STEPS } from './colour';
import { enclosed, inside, Squares } from './lasso';
import { fit, pan, toMap, toScreen, zoom } from './look';
import { draw, paint, shades } from './raster';

function random(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 2 ** 32;
  });
}

test('a lasso takes what lies inside it, also in a bay and outside its middle', () => {
  const bay: [number, number][] = [
    [0, 0],
    [4, 0],
    [4, 4],
    [2, 1],
    [0, 4],
  ];
  expect(inside(2, 0.5, bay)).toBe(true);
  expect(inside(2, 3, bay)).toBe(false);
  const x = new Float32Array([1, 2, 3.5, 9]);
  const y = new Float32Array([1, 3, 2, 1]);
  expect(enclosed(x, y, bay)).toEqual([0, 2]);
  expect(enclosed(x, y, bay.slice(0, 2))).toEqual([]);
});

test('the nearest point is the one that looking at all would find', () => {
  const [x, y] = [random(3000, 1), random(3000, 2)];
  const squares = new Squares(x, y);
  const asked = random(80, 3);
  for (let n = 0; n + 1 < asked.length; n += 2) {
    const [px, py] = [asked[n] as number, asked[n + 1] as number];
    let [best, least] = [-1, 0.05 ** 2];
    x.forEach((one, at) => {
      const far = (one - px) ** 2 + ((y[at] as number) - py) ** 2;
      if (far <= least) [best, least] = [at, far];
    });
    expect(squares.nearest(px, py, 0.05)).toBe(best);
  }
  expect(squares.nearest(50, 50, 1)).toBe(-1);
  expect(new Squares(new Float32Array([1]), new Float32Array([1])).nearest(1, 1, 0)).toBe(0);
});

test('colours: sign decides the side, one outlier does not end the scale', () => {
  const scores = Float32Array.from({ length: 1000 }, (_, n) => (n === 0 ? 1000 : n / 1000));
  expect(endOf(scores)).toBeLessThan(1.1);
  expect(endOf(new Float32Array([NaN]))).toBe(0);
  expect(endOf(new Float32Array([0, 0, -5]))).toBe(5);
  expect(shadeOf(9, 1)).toBe(STEPS);
  expect(shadeOf(-9, 1)).toBe(-STEPS);
  expect(shadeOf(0, 1)).toBe(0);
  for (const palette of [LIGHT, DARK]) {
    expect(rgbOf(STEPS, palette)).toEqual(palette.supports);
    expect(rgbOf(-STEPS, palette)).toEqual(palette.opposes);
    expect(rgbOf(0, palette)).toEqual(palette.zero);
  }
});

test('strong scores are drawn over weak ones, points without a score below all', () => {
  const painted = paint(4, new Float32Array([0.1, NaN, -1, 0.5]), 1);
  expect([...painted.order]).toEqual([1, 0, 3, 2]);
  expect(painted.shade[1]).toBe(0);
});

test('a point is drawn where the look puts it, and not outside the picture', () => {
  const on = { pixels: new Uint32Array(100), width: 10, height: 10 };
  const [x, y] = [new Float32Array([0, 40, NaN]), new Float32Array([0, 0, 0])];
  const look = { x: 0, y: 0, scale: 1 };
  const colours = shades(LIGHT, false);
  const points = { x, y, painted: paint(3, null, 0), chosen: [] };
  draw(on, points, colours, 1, look, 0);
  expect(on.pixels.filter((one) => one !== 0)).toHaveLength(1);
  expect(on.pixels[55]).toBe(colours[0]);
  draw(on, { ...points, chosen: [0] }, colours, 1, look, 0);
  expect(on.pixels.filter((one) => one === 1).length).toBeGreaterThan(4);
});

test('zooming leaves the point under the pointer where it is', () => {
  const box = { width: 800, height: 600 };
  const look = fit(new Float32Array([-1, 3]), new Float32Array([0, 2]), box);
  expect(toMap(look, box, 400, 300)).toEqual([1, 1]);
  const before = toMap(look, box, 123, 456);
  const zoomed = zoom(look, box, 3, 123, 456);
  expect(zoomed.scale).toBeCloseTo(look.scale * 3);
  const after = toMap(zoomed, box, 123, 456);
  expect(after[0]).toBeCloseTo(before[0]);
  expect(after[1]).toBeCloseTo(before[1]);
  const [px, py] = toScreen(zoomed, box, ...after);
  expect([px, py].map(Math.round)).toEqual([123, 456]);
  const moved = pan(zoomed, 10, -5);
  expect(toScreen(moved, box, ...after).map(Math.round)).toEqual([133, 451]);
});
