// Three builds of one source: the app (a folder), the report (one HTML file) and the widget (one
// module). They land in the Python package, from where the server and the wheel take them.
import { rm } from 'node:fs/promises';
import { build } from 'vite';

await rm(new URL('../src/headwater/assets/', import.meta.url), { recursive: true, force: true });
for (const mode of ['app', 'report', 'widget']) await build({ mode, logLevel: 'warn' });
