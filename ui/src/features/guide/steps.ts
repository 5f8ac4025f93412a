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

/** Weeks to begin with; every hour of them can be painted anew. */
export type WeekName = 'nights' | 'work' | 'all';

const NIGHT = 'cccccc................cc';
const ALL = 'ccccccmmmmmmmmmmmmmmmmcc';

/** Rows of the week, Monday first. Nights keep the letter of cheap electricity that they have by default. */
export const weeks: Record<WeekName, string[]> = {
  nights: Array.from({ length: 7 }, () => NIGHT),
  work: Array.from({ length: 7 }, (_, day) => (day < 5 ? 'cccccc..mmmmmmmmm.....cc' : NIGHT)),
  all: Array.from({ length: 7 }, () => ALL),
};
