import { expect, test } from 'vitest';
import { link, told } from './links';

test('only plain web addresses become links', () => {
  expect(link('https://example.org/a?b=1#c')).toBe('https://example.org/a?b=1#c');
  expect(link('  HTTP://example.org ')).toBe('http://example.org/');
  const refused = [
    'javascript:alert(1)',
    'java\nscript:alert(1)',
    'data:text/html,<script>1</script>',
    'vbscript:x',
    'file:///etc/passwd',
    '//example.org',
    'example.org',
    'https://user:secret@example.org',
    'https://user@example.org',
    'https:example.org',
    'https://',
    `https://example.org/${'x'.repeat(3000)}`,
    '',
    5,
    null,
    ['https://example.org'],
    undefined,
  ];
  for (const one of refused) expect(link(one)).toBeNull();
});

test('values are told as text', () => {
  expect([told(null), told(2), told(false), told({ a: [1] })]).toEqual(['–', '2', 'false', '{"a":[1]}']);
});
