import { expect, test } from 'vitest';
import { FEW, offered } from './columns';

const many = Array.from({ length: 30 }, (_, n) => `column ${n}`);

test('few columns are offered, those that are chosen among them', () => {
  expect(offered(many, [], false)).toEqual(many.slice(0, FEW));
  expect(offered(many, ['column 3', 'column 20', 'no column'], false)).toEqual([...many.slice(0, FEW), 'column 20']);
  expect(offered(many, [], true)).toEqual(many);
  expect(offered(many.slice(0, FEW + 1), [], false)).toHaveLength(FEW + 1);
});
