// Picking several ranges out of a row, by pointer and by keys: what was picked before (`kept`), and
// the range in hand, from its anchor to where one is. Pure, so that every rule of it can be tested.

export interface Picking {
  kept: ReadonlySet<number>;
  /** Where the range in hand began; null = none in hand. */
  anchor: number | null;
  at: number;
  /** The range in hand takes away instead of adding. */
  removes: boolean;
}

export const nothing = (at = 0): Picking => ({ kept: new Set(), anchor: null, at, removes: false });

export function picked({ kept, anchor, at, removes }: Picking): Set<number> {
  const all = new Set(kept);
  if (anchor === null) return all;
  for (let one = Math.min(anchor, at); one <= Math.max(anchor, at); one++)
    if (removes) all.delete(one);
    else all.add(one);
  return all;
}

/** A press of the pointer, Space (adds) or Enter (alone). */
export function press(now: Picking, at: number, how: { adds: boolean; extends: boolean }): Picking {
  if (how.extends && now.anchor !== null) return drag(now, at);
  const all = picked(now);
  if (how.adds) return { kept: all, anchor: at, at, removes: all.has(at) };
  const alone = all.size === 1 && all.has(at);
  // The only one is let go of; a drag from it picks a range all the same.
  return { kept: new Set(), anchor: at, at, removes: alone };
}

/** The range in hand up to another place. One that has nothing to take away from adds. */
export function drag(now: Picking, at: number): Picking {
  return now.anchor === null ? now : { ...now, at, removes: now.removes && now.kept.size > 0 };
}

/** To another place: the range in hand follows when it is extended, and is let go of else. */
export function move(now: Picking, to: number, count: number, extending: boolean): Picking {
  const at = Math.min(Math.max(0, to), Math.max(0, count - 1));
  if (extending && now.anchor !== null) return drag(now, at);
  const kept = picked(now);
  if (extending) return { kept, anchor: now.at, at, removes: false };
  return { kept, anchor: null, at, removes: false };
}
