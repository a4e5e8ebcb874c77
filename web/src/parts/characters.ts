// Python counts characters (code points), a browser counts UTF-16 units: after an emoji the two
// differ. Ranges are translated here, at the border, and nowhere else.

export type Range = [number, number];

export class Characters {
  /** The unit at which each character begins, and the end; null where the two counts agree. */
  private readonly starts: Uint32Array | null;

  constructor(readonly text: string) {
    if (!/[\ud800-\udbff][\udc00-\udfff]/.test(text)) {
      this.starts = null;
      return;
    }
    const starts: number[] = [];
    for (let at = 0; at < text.length; at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1) starts.push(at);
    this.starts = Uint32Array.from([...starts, text.length]);
  }

  /** Where a character begins, in units; what lies outside is moved to the nearer end. */
  unit(character: number): number {
    const inside = Math.max(0, character);
    if (!this.starts) return Math.min(inside, this.text.length);
    return this.starts[Math.min(inside, this.starts.length - 1)] ?? 0;
  }

  /** Which character a unit belongs to. */
  character(unit: number): number {
    const inside = Math.min(Math.max(0, unit), this.text.length);
    if (!this.starts) return inside;
    let low = 0;
    let high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.starts[middle] ?? 0) <= inside) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  get length(): number {
    return this.starts ? this.starts.length - 1 : this.text.length;
  }

  toUnits([start, end]: Range): Range {
    return [this.unit(start), this.unit(end)];
  }

  toCharacters([start, end]: Range): Range {
    return [this.character(start), this.character(end)];
  }
}

/** Ranges in their order, those that touch or overlap joined, empty ones left out. */
export function merged(ranges: readonly Range[]): Range[] {
  const sorted = ranges.filter(([start, end]) => end > start).sort((a, b) => a[0] - b[0]);
  const joined: Range[] = [];
  for (const [start, end] of sorted) {
    const last = joined.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else joined.push([start, end]);
  }
  return joined;
}

// Control characters, marks of direction and halves of surrogate pairs: training text may hold
// anything, and must not turn the words around it.
const CONTROL = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\p{Cs}]/gu;

/** The text, as long as before, with what cannot be shown as �. */
export function printable(text: string): string {
  return text.replace(CONTROL, '\ufffd').replaceAll('\r', ' ');
}
