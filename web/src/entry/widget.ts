// An answer inside a notebook (anywidget). Styles go into the root that the widget lives in, which
// in marimo is a shadow root.
import { mount, unmount } from 'svelte';
import Report from '../Report.svelte';
import theme from '../theme.css?inline';
import type { Payload } from '../types';

interface Model {
  get(name: 'payload'): string;
  on(name: string, act: () => void): void;
  off(name: string, act: () => void): void;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const style = document.createElement('style');
  style.textContent = theme;
  const target = document.createElement('div');
  el.append(style, target);
  let shown: Record<string, unknown> | undefined;
  const show = (): void => {
    if (shown) void unmount(shown);
    const payload = JSON.parse(model.get('payload')) as Payload;
    shown = mount(Report, { target, props: { payload } });
  };
  show();
  model.on('change:payload', show);
  return () => {
    model.off('change:payload', show);
    if (shown) void unmount(shown);
  };
}

export default { render };
