// What is looked at, in the URL after the #: a link opens the same screen again. Nothing secret is
// ever put there, and what stands there is data from anyone: it is read with care.

export type View = 'ask' | 'compare' | 'groups' | 'queries' | 'map' | 'board';
export const VIEWS: readonly View[] = ['ask', 'compare', 'groups', 'queries', 'map', 'board'];

const LONGEST = 20_000; // characters of a link

function read(hash: string): Record<string, string> {
  if (hash.length > LONGEST) return {};
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, '')));
}

/** The address as values: `address.values.index`, and so on. Set with `go`. */
class Address {
  values: Record<string, string> = $state({});

  get view(): View {
    const asked = this.values['view'] as View | undefined;
    return asked && VIEWS.includes(asked) ? asked : 'ask';
  }

  /** Take the URL's part after the # and follow it; call once. */
  follow(): void {
    const take = (): void => {
      this.values = read(location.hash);
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
    const hash = `#${new URLSearchParams(kept)}`;
    if (quiet) history.replaceState(null, '', hash);
    else history.pushState(null, '', hash);
  }
}

export const address = new Address();
