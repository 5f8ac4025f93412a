import { describe, expect, it } from 'vitest';

import {
  against,
  amountParts,
  cost,
  count,
  elapsed,
  factor,
  fileSize,
  hours,
  kwh,
  memorySize,
  percent,
  perKwh,
  points,
  share,
  shortened,
  span,
  usableLocale,
  when,
} from '../../src/lib/format';

describe('points', () => {
  it.each([
    [0, '0.000'],
    [105_000, '0.105'],
    [52_500, '0.0525'],
    [1, '0.000001'],
    [999_999, '0.999999'],
    [1_000_000, '1.000'],
    [12_483_500, '12.4835'],
    [1_234_567_891_000, '1,234,567.891'],
    [-1_500_000, '-1.500'],
    [-1, '-0.000001'],
  ])('prints %i micro-points as %s', (micro, text) => {
    expect(points(micro)).toBe(text);
  });

  it('cuts what it does not show and never rounds up', () => {
    expect(points(999_999, 3, 3)).toBe('0.999');
    expect(points(1_999_999, 0, 0)).toBe('1');
  });

  it('stays exact where a float of points would not', () => {
    // 9007199254.740991 points: the largest safe integer of micro-points.
    expect(points(Number.MAX_SAFE_INTEGER)).toBe('9,007,199,254.740991');
    // The classic: 0.1 + 0.2.
    expect(points(100_000 + 200_000)).toBe('0.300');
  });

  it('splits whole and fraction for the headline', () => {
    expect(amountParts(12_483_500)).toEqual({ whole: '12', fraction: '4835' });
  });

  it('prints factors without needless decimals', () => {
    expect(factor(1_000_000)).toBe('1');
    expect(factor(240_000)).toBe('0.24');
    expect(factor(1_150_000)).toBe('1.15');
  });
});

describe('time', () => {
  it.each([
    [0, '<0.1 s'],
    [40, '<0.1 s'],
    [99, '<0.1 s'],
    [100, '0.1 s'],
    [3_199, '3.1 s'],
    [59_999, '59.9 s'],
    [60_000, '1 min 00 s'],
    [125_000, '2 min 05 s'],
    [3_900_000, '1 h 05 min'],
    [-5, '<0.1 s'],
  ])('prints %i ms as %s', (ms, text) => {
    expect(elapsed(ms)).toBe(text);
  });

  it('sets a running time against its limit in seconds', () => {
    expect(against(3_140, 180_000)).toBe('3.1 s of 180 s');
    expect(against(95_050, 180_000)).toBe('95.0 s of 180 s');
  });

  it('names the day only when it is not today', () => {
    const now = new Date(2026, 10, 22, 14, 5).getTime();
    const yesterday = new Date(2026, 10, 21, 14, 5).getTime();
    expect(when(now, now)).not.toContain(',');
    expect(when(yesterday, now)).toContain('21');
  });

  it('survives the locale that WebKit reports under LANG=C', () => {
    expect(usableLocale('C')).toBe('en-GB');
    expect(usableLocale(undefined)).toBe('en-GB');
    expect(usableLocale('de-DE')).toBe('de-DE');
  });
});

describe('sizes', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1_000, '1.0 kB'],
    [98_239_872, '98.2 MB'],
    [999_950_000, '1.0 GB'],
    [8_540_770_304, '8.5 GB'],
  ])('prints files of %i bytes as %s', (bytes, text) => {
    expect(fileSize(bytes)).toBe(text);
  });

  it('prints memory as cards are sold', () => {
    expect(memorySize(24 * 1024 ** 3)).toBe('24.0 GB');
    expect(memorySize(512 * 1024 ** 2)).toBe('512.0 MB');
  });

  it('keeps shares between nothing and all', () => {
    expect(share(5, 10)).toBe(0.5);
    expect(share(20, 10)).toBe(1);
    expect(share(-1, 10)).toBe(0);
    expect(share(1, 0)).toBe(0);
  });

  it('says 100% only when it is all', () => {
    expect(percent(0.999)).toBe('99%');
    expect(percent(1)).toBe('100%');
  });
});

describe('texts', () => {
  it('groups counts', () => {
    expect(count(999)).toBe('999');
    expect(count(1_234_567)).toBe('1,234,567');
  });

  it('shortens long hexadecimal texts only', () => {
    expect(shortened('0x1f9a3c5be27d480f')).toBe('0x1f9a…480f');
    expect(shortened('0x1f9a')).toBe('0x1f9a');
  });
});

describe('energy and time', () => {
  it('is told in kilowatt hours, costs and points for each', () => {
    expect(kwh(3.6e9)).toBe('1.000');
    expect(kwh(0)).toBe('0.000');
    expect(kwh(3.6e9 * 12.345)).toBe('12.35');
    expect(cost(3_200_000)).toBe('3.20');
    expect(cost(320_000)).toBe('0.3200');
    expect(perKwh(1_500_000, 7.2e9)).toBe(750_000);
    expect(perKwh(1, 0)).toBeNull();
  });

  it('is told in the two largest units', () => {
    expect(span(59_000)).toBe('0 min');
    expect(span(3_900_000)).toBe('1 h 05 min');
    expect(span(76 * 3_600_000)).toBe('3 d 4 h');
    expect(hours(1_497 * 3_600_000)).toBe('1,497 h');
    expect(hours(7_500_000)).toBe('2 h 05 min');
  });
});
