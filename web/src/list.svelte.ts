// The list that every view adds to: training examples, each with what is to be done with it. It
// lives in this tab (memory and sessionStorage) and not in the URL: it may be long, and it is the
// reader's own work, not a place.
import { SvelteMap } from 'svelte/reactivity';

export const ACTIONS = ['drop', 'keep', 'relabel', 'add similar', 'inspect'] as const;
export type Action = (typeof ACTIONS)[number];

/** What each action asks of whoever gets the list. */
export const MEANS: Record<Action, string> = {
  drop: 'leave it out of the training data',
  keep: 'leave it in, whatever else is dropped',
  relabel: 'its text or label is wrong: write what it should say',
  'add similar': 'the data needs more like it',
  inspect: 'somebody should read it',
};

export interface Listed {
  index: string;
  id: string;
  action: Action;
  /** The first words, to know it by. */
  text: string;
  position: number | null;
  /** Why it is here: "supports “ Lima”", "lasso", … */
  from: string;
  /** What it should say (relabel), or a remark. */
  note: string;
}

export type Candidate = Pick<Listed, 'index' | 'id' | 'text'> & Partial<Listed>;

const KEY = 'headwater list';
const SHORT = 160; // characters of a text that are kept
export const MOST = 50_000;

const keyOf = (index: string, id: string): string => `${index}\n${id}`;
const isAction = (value: unknown): value is Action => ACTIONS.includes(value as Action);

/** What was stored, as far as it can be used. */
export function restored(stored: string | null): Listed[] {
  let rows: unknown;
  try {
    rows = JSON.parse(stored ?? '[]');
  } catch {
    return [];
  }
  if (!Array.isArray(rows)) return [];
  const usable = rows.filter(
    (row: Partial<Listed> | null) =>
      row !== null &&
      typeof row === 'object' &&
      typeof row.index === 'string' &&
      typeof row.id === 'string' &&
      isAction(row.action),
  ) as Listed[];
  return usable.slice(0, MOST).map(complete);
}

function complete(one: Candidate): Listed {
  return {
    index: one.index,
    id: one.id,
    action: one.action ?? 'inspect',
    text: Array.from(String(one.text ?? '')).slice(0, SHORT).join(''),
    position: typeof one.position === 'number' ? one.position : null,
    from: String(one.from ?? ''),
    note: String(one.note ?? ''),
  };
}

class SelectionList {
  #rows = new SvelteMap<string, Listed>();
  /** False when the browser's store is full: a reload would lose the list. */
  kept = $state(true);
  #waiting: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    let stored: string | null = null;
    try {
      stored = sessionStorage.getItem(KEY);
    } catch {
      // A page without storage: a report from disk, a sandboxed frame.
    }
    for (const one of restored(stored)) this.#rows.set(keyOf(one.index, one.id), one);
  }

  get size(): number {
    return this.#rows.size;
  }

  get rows(): Listed[] {
    return [...this.#rows.values()];
  }

  of(index: string): Listed[] {
    return this.rows.filter((one) => one.index === index);
  }

  has(index: string, id: string): boolean {
    return this.#rows.has(keyOf(index, id));
  }

  get(index: string, id: string): Listed | undefined {
    return this.#rows.get(keyOf(index, id));
  }

  /** Add examples; those already there keep their action. Returns how many are new. */
  add(candidates: Candidate[]): number {
    const before = this.#rows.size;
    for (const one of candidates) {
      if (this.#rows.size >= MOST) break;
      const key = keyOf(one.index, one.id);
      if (!this.#rows.has(key)) this.#rows.set(key, complete(one));
    }
    this.#save();
    return this.#rows.size - before;
  }

  /** In, or out again. */
  toggle(one: Candidate): void {
    if (this.has(one.index, one.id)) this.remove([one]);
    else this.add([one]);
  }

  change(index: string, id: string, changes: Partial<Pick<Listed, 'action' | 'note'>>): void {
    const found = this.get(index, id);
    if (!found) return;
    this.#rows.set(keyOf(index, id), { ...found, ...changes });
    this.#save();
  }

  act(index: string, action: Action): void {
    for (const one of this.of(index)) this.#rows.set(keyOf(index, one.id), { ...one, action });
    this.#save();
  }

  remove(gone: Pick<Listed, 'index' | 'id'>[]): void {
    for (const one of gone) this.#rows.delete(keyOf(one.index, one.id));
    this.#save();
  }

  clear(index: string): void {
    this.remove(this.of(index));
  }

  #save(): void {
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(() => this.store(), 50);
  }

  /** Write it down now; done by itself soon after every change. */
  store(): void {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.rows));
      this.kept = true;
    } catch {
      this.kept = false;
    }
  }
}

export const list = new SelectionList();
if (typeof addEventListener === 'function') addEventListener('pagehide', () => list.store());
