// The points of a map from the server, and which of them are worth a look first.
import { get, getBytes } from '../../api';

export type Of = 'features' | 'semantic';

/** What the job "map" gives. */
export interface Made {
  points: number;
  of: Of;
  seconds: number;
  /** How, in a sentence. */
  made_by?: string;
  /** Share of the ten nearest neighbours that are near on the map, too. */
  kept?: number | null;
  without_place?: number;
}

export interface Places {
  x: Float32Array;
  y: Float32Array;
  ids: string[];
}

export async function places(index: string, of: Of): Promise<Places> {
  const asked = new URLSearchParams({ index, of });
  const [bytes, ids] = await Promise.all([
    getBytes(`map?${asked}`),
    get<string[]>(`map/ids?${asked}`),
  ]);
  const all = new Float32Array(bytes);
  const count = Math.min(ids.length, all.length / 2);
  return { x: all.subarray(0, count), y: all.subarray(all.length / 2, all.length / 2 + count), ids };
}

/** Places of the points with the greatest scores by size, greatest first; those with a score only. */
export function strongest(scores: Float32Array, of: ArrayLike<number> | null, most: number): number[] {
  const size = (n: number): number => Math.abs(scores[n] as number);
  const all = of ? Array.from(of) : Array.from(scores.keys());
  const known = all.filter((n) => Number.isFinite(scores[n]));
  return known.sort((a, b) => size(b) - size(a)).slice(0, most);
}
