// Methods that are told of first: those that only scan what is stored answer in moments, the others
// read the corpus again or train, and are asked for knowingly.
import type { MethodInfo } from '../../types';

/** Whether it answers in moments by what is stored. */
export const scans = ({ costs }: MethodInfo): boolean => /\bscan\b/.test(costs) && !/\b(pass|passes|model|encoder|training)\b/.test(costs);

/** Those that can be asked, the quick ones first and apart. */
export function quickFirst(methods: readonly MethodInfo[]): { quick: MethodInfo[]; slow: MethodInfo[] } {
  const able = methods.filter((one) => one.missing === null);
  return { quick: able.filter(scans), slow: able.filter((one) => !scans(one)) };
}
