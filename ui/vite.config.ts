import { svelte } from '@sveltejs/vite-plugin-svelte';
import { svelteTesting } from '@testing-library/svelte/vite';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte(), svelteTesting()],
  // The page is served from inside the program: no other origin, no inlined modules.
  base: './',
  build: {
    // The oldest web view we meet; the compiler also spells out light-dark() for it.
    target: 'safari17',
    modulePreload: { polyfill: false },
    // Fonts and images stay files, so that the policy needs no data: beyond images.
    assetsInlineLimit: 0,
  },
  test: {
    // Pages are audited on machines that others share.
    testTimeout: 60_000,
    environment: 'jsdom',
    include: ['tests/**/*.test.ts'],
    setupFiles: ['tests/setup.ts'],
  },
});
