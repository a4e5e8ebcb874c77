// What is looked at, in the URL after the #: a link opens the same screen again. Nothing secret is
// ever put there, and what stands there is data from anyone: it is read with care.
import { hashOf, LONGEST, read } from './hash';

export type View = 'ask' | 'compare' | 'groups' | 'queries' | 'map' | 'board';
export const VIEWS: readonly View[] = ['ask', 'compare', 'groups', 'queries', 'map', 'board'];

/** The address as values: `address.values.index`, and so on. Set with `go`. */
class Address {
  values: Record<string, string> = $state({});
  /** What the URL has no room for, in a sentence; '' = it holds everything. */
  dropped = $state('');

  get view(): View {
    const asked = this.values['view'] as View | undefined;
    return asked && VIEWS.includes(asked) ? asked : 'ask';
  }

  /** Take the URL's part after the # and follow it; call once. */
  follow(): void {
    const take = (): void => {
      const values = read(location.hash);
      this.values = values ?? {};
      this.dropped = values ? '' : `The link is longer than ${LONGEST.toLocaleString('en')} characters: nothing of it was taken.`;
    };
    take();
    addEventListener('hashchange', take);
  }

  /** Change some values (null removes one). A step in the browser's history unless `quiet`. */
  go(changes: Record<string, string | null>, quiet = false): void {
    const kept = Object.entries({ ...this.values, ...changes }).filter(
      (pair): pair is [string, string] => pair[1] !== null && pair[1] !== '',
    );
    this.values = Object.fromEntries(kept);
    const { hash, left } = hashOf(this.values);
    this.dropped = left.length
      ? `This question is too long for an address: ${left.join(', ')} will not be there after a reload or in a copied link.`
      : '';
    if (quiet) history.replaceState(null, '', hash);
    else history.pushState(null, '', hash);
  }
}

export const address = new Address();
