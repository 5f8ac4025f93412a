// The order of the guide's steps, and how long a download takes.

import type { OnboardingStep } from '../../lib/api/types';
import { t } from '../../lib/strings';

export const order: readonly OnboardingStep[] = [
  'reward',
  'key',
  'machine',
  'models',
  'when',
  'first_job',
];

export function before(step: OnboardingStep): OnboardingStep | null {
  return order[order.indexOf(step) - 1] ?? null;
}

export function after(step: OnboardingStep): OnboardingStep | null {
  return order[order.indexOf(step) + 1] ?? null;
}

/** Bytes in a second at 50 Mbit/s, a common connection. */
const BYTES_PER_SECOND = 6_250_000;

/** How long a download of this size takes at that speed, in words. */
export function downloadTime(bytes: number): string {
  const seconds = Math.max(1, Math.ceil(bytes / BYTES_PER_SECOND));
  return seconds < 120 ? t.guide.seconds(seconds) : t.guide.minutes(Math.ceil(seconds / 60));
}
