import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

// Styles travel inside the script: a widget may live in a shadow root, where a style sheet of the
// page does not reach.
export default {
  preprocess: vitePreprocess(),
  compilerOptions: { css: 'injected', runes: true },
};
