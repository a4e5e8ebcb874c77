// What is looked at in an answer: one state that its parts share, so that pointing at one thing
// marks what belongs to it in the others.

export class Look {
  /** Words of the output whose part of each score is shown: places in `answer.target`. */
  target: number[] | null = $state.raw(null);
  /** A verbatim span: its place in `answer.spans`. */
  span: number | null = $state(null);
  /** A bar of the histogram. */
  bin: number | null = $state(null);
  /** The example under the pointer or the focus. */
  example: string | null = $state(null);
  /** An example to bring into view; set again for each call. */
  called: { id: string } | null = $state.raw(null);

  call(id: string): void {
    this.called = { id };
  }
}
