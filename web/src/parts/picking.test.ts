import { expect, test } from 'vitest';
import { drag, move, nothing, picked, press, type Picking } from './picking';

const alone = { adds: false, extends: false };
const adding = { adds: true, extends: false };
const extending = { adds: false, extends: true };
const list = (now: Picking): number[] => [...picked(now)].sort((a, b) => a - b);

test('a click picks one, a drag or Shift a range, a click on the only one lets it go', () => {
  const one = press(nothing(), 3, alone);
  expect(list(one)).toEqual([3]);
  expect(list({ ...one, at: 1 })).toEqual([1, 2, 3]);
  expect(list(press(one, 5, extending))).toEqual([3, 4, 5]);
  expect(list(press(press(nothing(), 3, alone), 3, alone))).toEqual([]);
  expect(list(press(press(one, 5, extending), 9, alone))).toEqual([9]);
});

test('a drag from the only one picks a range, there and back', () => {
  const gone = press(press(nothing(), 3, alone), 3, alone);
  expect(list(gone)).toEqual([]);
  expect(list(drag(gone, 5))).toEqual([3, 4, 5]);
  expect(list(drag(drag(gone, 5), 3))).toEqual([3]);
  expect(list(press(gone, 5, extending))).toEqual([3, 4, 5]);
  expect(list(move(gone, 4, 10, true))).toEqual([3, 4]);
  expect(list(press(gone, 3, alone))).toEqual([3]);
  const taking = press(press(press(nothing(), 0, alone), 4, extending), 1, adding);
  expect(list(drag(taking, 2))).toEqual([0, 3, 4]);
});

test('Ctrl+click or Space adds a further range, and takes away from what is picked', () => {
  const two = press(press(press(nothing(), 0, alone), 2, extending), 6, adding);
  expect(list(two)).toEqual([0, 1, 2, 6]);
  expect(list({ ...two, at: 8 })).toEqual([0, 1, 2, 6, 7, 8]);
  expect(list(press(two, 1, adding))).toEqual([0, 2, 6]);
});

test('arrows walk without picking, with Shift they stretch and shrink one range', () => {
  let now = move(nothing(2), 3, 10, false);
  expect([now.at, list(now)]).toEqual([3, []]);
  now = move(now, 4, 10, true);
  now = move(now, 5, 10, true);
  expect(list(now)).toEqual([3, 4, 5]);
  now = move(now, 4, 10, true);
  expect(list(now)).toEqual([3, 4]);
  now = move(now, 99, 10, false);
  expect([now.at, list(now)]).toEqual([9, [3, 4]]);
  now = move(now, 8, 10, true);
  expect(list(now)).toEqual([3, 4, 8, 9]);
});
