// One file that opens from a disk: the data stands in the page, and there is no server.
import { mount } from 'svelte';
import Report from '../Report.svelte';
import theme from '../theme.css?inline';
import page from './page.css?inline';
import type { Payload } from '../types';

const style = document.createElement('style');
style.textContent = theme + page;
document.head.append(style);
const target = document.getElementById('app');
const data = document.getElementById('headwater-data')?.textContent;
if (target && data) {
  const payload = JSON.parse(data) as Payload;
  document.title = payload.title;
  mount(Report, { target, props: { payload } });
}
