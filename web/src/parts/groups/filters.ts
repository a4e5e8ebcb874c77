// What the server says of a filter, told apart from other failures: it is shown beside the field.
import type { Failure } from '../../types';

/** Whether it is the filter that failed. */
export const isOfFilter = (failure: Failure): boolean => failure.wrong.startsWith('The filter ');

/** The character, from 0, at which a filter is not right; null where no place is told. */
export function wrongPlace(failure: Failure): number | null {
  const [, at] = /^The filter .* at character (\d+)/.exec(failure.wrong) ?? [];
  return at === undefined ? null : Number(at) - 1;
}
