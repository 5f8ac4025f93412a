// Whether a model runs on this machine, and what is left of a download, in words.

import type { LibraryStatus, ModelFit, ModelId, QueueItem } from '../../lib/api/types';
import { elapsed, fileSize, memorySize } from '../../lib/format';
import { t } from '../../lib/strings';

export type Tone = 'good' | 'slower' | 'no';

const DAY_MS = 86_400_000;

/** The device's name without its maker's long one. */
export function shortDevice(name: string): string {
  return name
    .replace(/^(NVIDIA|AMD|Intel\(R\)|Intel)\s+/, '')
    .replace(/^(GeForce|Core\(TM\))\s+/, '')
    .replace(/\s+\d+-Core Processor$/, '');
}

export function tone(fit: ModelFit): Tone {
  if (fit.verdict === 'runs') return 'good';
  return fit.verdict === 'no' ? 'no' : 'slower';
}

/** The verdict and its numbers, as one sentence without its end. */
export function fitWords(fit: ModelFit): string {
  const [needed, available] = [memorySize(fit.needed_bytes), memorySize(fit.available_bytes)];
  const numbers =
    fit.verdict === 'no'
      ? t.library.fitNo(needed, available, shortDevice(fit.device))
      : t.library.fitTakes(needed, available, shortDevice(fit.device));
  return `${t.library.verdicts[fit.verdict]}: ${numbers}`;
}

/** The best verdict over all devices. */
export function bestFit(fits: readonly ModelFit[]): ModelFit | null {
  const rank = { good: 0, slower: 1, no: 2 } as const;
  return [...fits].sort((a, b) => rank[tone(a)] - rank[tone(b)])[0] ?? null;
}

/** When a model was last used. */
export function usedWords(usedMs: number | null, nowMs: number): string {
  if (usedMs === null) return t.library.usedNever;
  const midnight = new Date(nowMs).setHours(0, 0, 0, 0);
  const days = usedMs >= midnight ? 0 : Math.ceil((midnight - usedMs) / DAY_MS);
  return t.library.usedDays(days);
}

/** Where a download stands, in a few words. */
export function queueWords(item: QueueItem): string {
  const words: string[] = [
    t.models.fetching(fileSize(item.done_bytes), fileSize(item.total_bytes)),
  ];
  if (item.state !== 'running') return `${t.library.states[item.state]} · ${words[0] ?? ''}`;
  if (item.bytes_per_s !== null) words.push(t.library.speed(fileSize(item.bytes_per_s)));
  if (item.seconds_left !== null) words.push(t.library.left(elapsed(item.seconds_left * 1000)));
  return words.join(' · ');
}

/** The share of the drive that the library takes of what it may, 0 to 1. */
export function fullness(library: LibraryStatus): number {
  const room = library.settings.cap_bytes ?? library.used_bytes + (library.free_bytes ?? 0);
  return room > 0 ? Math.min(1, library.used_bytes / room) : 0;
}

/** Minutes since midnight as `22:00`. */
export function clock(minute: number): string {
  const two = (n: number) => n.toString().padStart(2, '0');
  return `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;
}

/** `22:00` as minutes since midnight; null for anything else. */
export function minutes(text: string): number | null {
  const found = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(text);
  return found ? Number(found[1]) * 60 + Number(found[2]) : null;
}

/** Bytes that removing these models would free. */
export function freed(library: LibraryStatus, models: readonly ModelId[]): number {
  return library.models
    .filter((model) => models.includes(model.model))
    .reduce((sum, model) => sum + model.disk_bytes, 0);
}
