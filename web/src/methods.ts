// Which methods can rank the examples of an index, how each is named in the address, and how it is
// asked. Influence stands there as `method`. What ranks texts without the model stands as `ranker`: in
// Ask it is a kind of evidence and no method, so that a question keeps its method from view to view.
import { scans } from './parts/groups/quick';
import type { IndexInfo, KindName, MethodInfo } from './types';

type Values = Record<string, string>;

/** Rankings of texts that are a kind of evidence, too. */
const KINDS: Readonly<Record<string, KindName>> = { bm25: 'lexical', dense: 'semantic' };

/** The kind of evidence that a method's ranking is; null where it is none. */
export const kindOf = ({ name, influence }: MethodInfo): KindName | null => (influence ? 'influence' : (KINDS[name] ?? null));

export interface Offered {
  influence: MethodInfo[];
  /** What is there without a model. */
  texts: MethodInfo[];
  /** Methods of influence that cannot be asked of this index. */
  unable: MethodInfo[];
}

export function offered(index: IndexInfo): Offered {
  const methods = index.methods.filter((one) => one.influence);
  const ranks = (one: MethodInfo): boolean => {
    const kind = one.influence ? null : kindOf(one);
    return kind !== null && one.missing === null && index.kinds.includes(kind);
  };
  return {
    influence: methods.filter((one) => one.missing === null),
    texts: index.methods.filter(ranks),
    unable: methods.filter((one) => one.missing !== null),
  };
}

/**
 * The method that the address names; else the first that only scans what is stored, and where nothing
 * is stored what reads texts: a pass of the model over the whole corpus begins only when somebody
 * chose it.
 */
export function methodOf(index: IndexInfo, values: Values): MethodInfo | undefined {
  const { influence, texts } = offered(index);
  const methods = index.methods.filter((one) => one.influence);
  return (
    texts.find((one) => one.name === values['ranker']) ??
    methods.find((one) => one.name === values['method']) ??
    (index.features ? influence[0] : undefined) ??
    texts[0] ??
    methods[0]
  );
}

/** The same method in another index, where there is such a one. */
export const sameIn = (index: IndexInfo, one: MethodInfo): MethodInfo | undefined =>
  methodOf(index, { [one.influence ? 'method' : 'ranker']: one.name });

/** What a method can be compared with: what answers in moments first, controls last. */
export function otherThan(index: IndexInfo, method: MethodInfo): MethodInfo[] {
  const { influence, texts } = offered(index);
  const first = index.features ? [...influence, ...texts] : [...texts, ...influence];
  const rest = index.methods.filter((one) => one.missing === null && !first.includes(one));
  return [...first, ...rest].filter((one) => one.name !== method.name);
}

/** The one of them that is taken unasked: what answers in moments. */
export const usualOther = (ways: MethodInfo[]): MethodInfo | undefined =>
  ways.find((one) => scans(one) || kindOf(one) === 'lexical');

/** A method in the address. */
export const addressOfMethod = (one: MethodInfo): Record<string, string | null> =>
  one.influence ? { method: one.name, ranker: null } : { ranker: one.name };

/** The part of a question that says how the examples are ranked: by this method alone. */
export function rankedBy(method: MethodInfo): { method?: string; evidence: KindName[] } | null {
  const kind = kindOf(method);
  if (kind === null) return null;
  return kind === 'influence' ? { method: method.name, evidence: [kind] } : { evidence: [kind] };
}

/** The filter of the address, as a question has it. */
export function filterOf(values: Values): { filter?: string } {
  const filter = (values['among'] ?? '').trim();
  return filter ? { filter } : {};
}
