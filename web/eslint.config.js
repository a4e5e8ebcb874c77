import svelte from 'eslint-plugin-svelte';
import globals from 'globals';
import ts from 'typescript-eslint';

export default ts.config(
  ...ts.configs.recommended,
  ...svelte.configs['flat/recommended'],
  { languageOptions: { globals: globals.browser } },
  {
    files: ['**/*.svelte', '**/*.svelte.ts'],
    languageOptions: { parserOptions: { parser: ts.parser } },
  },
  {
    rules: {
      // Training text is text: it never becomes markup.
      'svelte/no-at-html-tags': 'error',
      'no-restricted-properties': [
        'error',
        { property: 'innerHTML', message: 'Text goes in as text nodes.' },
        { property: 'outerHTML', message: 'Text goes in as text nodes.' },
        { property: 'insertAdjacentHTML', message: 'Text goes in as text nodes.' },
      ],
      'no-restricted-globals': [
        'error',
        { name: 'fetch', message: 'Only api.ts talks to the server.' },
        { name: 'EventSource', message: 'Only api.ts talks to the server.' },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
    },
  },
  { files: ['src/api.ts'], rules: { 'no-restricted-globals': 'off' } },
);
