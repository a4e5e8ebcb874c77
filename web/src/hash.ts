// The URL's part after the # as values, and back. It comes from anyone, and has room for so much only.

export const LONGEST = 1_000_000; // characters after the #; browsers hold that many
/** Parts that hold text of any length. One is no question without the others. */
const TEXTS = ['prompt', 'completion', 'instead_of', 'other', 'words'];

/** The values in the URL's part after the #; null where it is too long to be read. */
export function read(hash: string): Record<string, string> | null {
  if (hash.length > LONGEST) return null;
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, '')));
}

/** The values as the URL's part after the #, and the parts that it has no room for. */
export function hashOf(values: Record<string, string>): { hash: string; left: string[] } {
  const hash = `#${new URLSearchParams(values)}`;
  if (hash.length <= LONGEST) return { hash, left: [] };
  const [left, kept] = [TEXTS.filter((name) => name in values), { ...values }];
  for (const name of left) delete kept[name];
  const rest = `#${new URLSearchParams(kept)}`;
  return rest.length <= LONGEST ? { hash: rest, left } : { hash: '#', left: Object.keys(values) };
}
