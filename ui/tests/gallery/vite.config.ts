// The pages with made-up states, to look at: `npm run gallery`, then ?page=home&state=working&theme=dark.

import { fileURLToPath } from 'node:url';

import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  base: './',
  plugins: [svelte()],
  build: {
    outDir: fileURLToPath(new URL('../../node_modules/.gallery', import.meta.url)),
    emptyOutDir: true,
    target: 'safari17',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
