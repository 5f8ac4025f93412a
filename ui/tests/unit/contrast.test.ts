// Holds the colours of both themes to WCAG 2.2 AA, straight from the style sheet.

import { readFileSync } from 'node:fs';

import { describe, expect, it } from 'vitest';

// npm runs tests in the folder of package.json.
const css = readFileSync('src/app.css', 'utf8');

function colour(token: string, theme: 'light' | 'dark'): string {
  const pair = new RegExp(`--${token}: light-dark\\((#[0-9a-f]{6}), (#[0-9a-f]{6})\\)`).exec(css);
  const found = pair?.[theme === 'light' ? 1 : 2];
  if (!found) throw new Error(`--${token} has no pair of colours`);
  return found;
}

function luminance(hex: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const c = parseInt(hex.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one: string, other: string): number {
  const [light = 0, dark = 0] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

const texts: [string, string][] = [
  ...['bg', 'side', 'surface', 'raised', 'sunken'].flatMap((ground): [string, string][] => [
    ['ink', ground],
    ['muted', ground],
  ]),
  ['accent', 'surface'],
  ['accent', 'bg'],
  ['accent', 'sunken'],
  ['accent', 'accent-soft'],
  ['ink', 'accent-soft'],
  ['on-accent', 'accent'],
  ['on-accent', 'accent-hover'],
  ['amber', 'amber-soft'],
  ['ink', 'amber-soft'],
  ['red', 'red-soft'],
  ['red', 'surface'],
  ['ink', 'red-soft'],
];

describe.each(['light', 'dark'] as const)('the %s theme', (theme) => {
  it.each(texts)('shows %s on %s at 4.5:1 or better', (text, ground) => {
    expect(contrast(colour(text, theme), colour(ground, theme))).toBeGreaterThanOrEqual(4.5);
  });

  it.each(['surface', 'raised', 'bg'])('draws the edges of controls on %s at 3:1', (ground) => {
    const ratio = contrast(colour('line-strong', theme), colour(ground, theme));
    expect(ratio).toBeGreaterThanOrEqual(3);
  });
});

it('knows the extremes', () => {
  expect(contrast('#000000', '#ffffff')).toBeCloseTo(21, 5);
});
