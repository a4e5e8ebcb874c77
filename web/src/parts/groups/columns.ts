// Which of many metadata columns are offered. They come in order of their use for groups: few values
// first, ids and texts last.

export const FEW = 8;

/** The first of the columns, and those that are chosen; all of them when they are few, or asked for. */
export function offered(columns: readonly string[], chosen: readonly string[], all: boolean): string[] {
  if (all || columns.length <= FEW + 1) return [...columns]; // one more is no longer than "1 more"
  return columns.filter((one, place) => place < FEW || chosen.includes(one));
}
