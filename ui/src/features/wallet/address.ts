// An address in the groups that people compare.

import { points } from '../../lib/format';
import { locale } from '../../lib/language.svelte';
import { t } from '../../lib/strings';

/** `0x`, the first four characters, the middle, the last four. */
export function groups(address: string): { head: string; middle: string; tail: string } {
  return { head: address.slice(2, 6), middle: address.slice(6, -4), tail: address.slice(-4) };
}

/** How long ago, in words. */
export function ago(thenMs: number, nowMs: number): string {
  const minutes = Math.floor(Math.max(0, nowMs - thenMs) / 60_000);
  if (minutes < 1) return t.wallet.ago.now;
  if (minutes < 60) return t.wallet.ago.minutes(minutes);
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? t.wallet.ago.hours(hours) : t.wallet.ago.days(Math.floor(hours / 24));
}

/** A day, for history. */
export function day(ms: number): string {
  return new Date(ms).toLocaleDateString(locale(), { dateStyle: 'medium' });
}

/** A factor in millionths: `1.15`. */
export function factor(millionths: number): string {
  return points(millionths, 0, 6);
}
