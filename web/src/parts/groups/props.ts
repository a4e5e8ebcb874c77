import type { IndexInfo, MethodInfo, Query } from '../../types';

/** What a view of groups is about. */
export interface Props {
  index: IndexInfo;
  method: MethodInfo;
  query: Query;
  /** Only examples that pass it take part. */
  filter: string | undefined;
}
