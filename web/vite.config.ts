import { createHash } from 'node:crypto';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

const out = '../src/headwater/assets';

/** One HTML file: the script inside it, and a policy that lets this very script run and no other. */
function singleFile(): Plugin {
  return {
    name: 'single-file',
    enforce: 'post',
    generateBundle(_, bundle) {
      const pages = Object.values(bundle).filter((one) => one.fileName.endsWith('.html'));
      const scripts = Object.values(bundle).filter((one) => one.type === 'chunk');
      const [page] = pages;
      const [script] = scripts;
      if (pages.length !== 1 || scripts.length !== 1 || page?.type !== 'asset' || script?.type !== 'chunk')
        this.error(`a report is one page with one script, found ${Object.keys(bundle).join(', ')}`);
      // What would end the script early inside a page. Escapes mean the same in strings.
      const code = script.code.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');
      const hash = createHash('sha256').update(code).digest('base64');
      const policy =
        `default-src 'none'; script-src 'sha256-${hash}'; style-src 'unsafe-inline'; ` +
        `img-src data: blob:; base-uri 'none'; form-action 'none'`;
      page.source = String(page.source)
        .replace(/<script type="module"[^>]*><\/script>/, '')
        .replace('%POLICY%', policy)
        .replace('<!--script-->', () => `<script type="module">${code}</script>`);
      delete bundle[script.fileName];
    },
  };
}

export default defineConfig(({ mode }) => {
  const common = { target: 'es2022', emptyOutDir: false, assetsInlineLimit: 1e8 };
  // The app's styles are files, so that its policy needs no inline style.
  const css = mode === 'app' ? ('external' as const) : ('injected' as const);
  const plugins = [svelte({ compilerOptions: { css } })];
  if (mode === 'report')
    return {
      base: './',
      plugins: [...plugins, singleFile()],
      build: {
        ...common,
        outDir: out,
        modulePreload: false,
        rollupOptions: { input: 'report.html', output: { codeSplitting: false } },
      },
    };
  if (mode === 'widget')
    return {
      plugins,
      define: { 'process.env.NODE_ENV': '"production"' },
      build: {
        ...common,
        outDir: out,
        lib: { entry: 'src/entry/widget.ts', formats: ['es' as const], fileName: () => 'widget.js' },
      },
    };
  return {
    base: './', // below any path prefix
    plugins,
    build: { ...common, outDir: `${out}/app`, modulePreload: { polyfill: false } },
    server: { proxy: { '/api': 'http://127.0.0.1:8613' } },
    test: { environment: 'jsdom', include: ['src/**/*.test.ts'] },
    ...(process.env['VITEST'] ? { resolve: { conditions: ['browser'] } } : {}),
  };
});
