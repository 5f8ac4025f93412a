// Numbers into text. Amounts are integers of micro-points and stay integers: no float holds one.

import { locale, t, usableLocale } from './language.svelte';

export { usableLocale };

const PER_POINT = 1_000_000n;

/** The parts of an amount: `0` and `105` of 0.105 points; the whole part is grouped by thousands. */
export interface AmountParts {
  whole: string;
  fraction: string;
}

/**
 * Splits an amount. Shows `least` decimals and more only where they are not zero, up to `most`;
 * what lies beyond is cut, never rounded up, so nothing looks larger than it is.
 */
export function amountParts(micro: number, least = 3, most = 6): AmountParts {
  const value = BigInt(Math.trunc(micro));
  const size = value < 0n ? -value : value;
  const sign = value < 0n ? '-' : '';
  const digits = (size % PER_POINT).toString().padStart(6, '0').slice(0, most);
  let end = digits.length;
  while (end > least && digits[end - 1] === '0') end -= 1;
  return { whole: sign + grouped(size / PER_POINT), fraction: digits.slice(0, end) };
}

/** An amount as text, for example `12.345` or `0.0525`. */
export function points(micro: number, least = 3, most = 6): string {
  const { whole, fraction } = amountParts(micro, least, most);
  return fraction === '' ? whole : `${whole}${decimal()}${fraction}`;
}

/** An amount for a field, in which it can be read again: without anything between thousands. */
export function fieldAmount(micro: number, least = 2, most = 6): string {
  const { whole, fraction } = amountParts(micro, least, most);
  const digits = whole.replace(/[^\d-]/g, '');
  return fraction === '' ? digits : `${digits}${decimal()}${fraction}`;
}

/** A factor in millionths as text, for example `1.15` or `1`. */
export function factor(millionths: number): string {
  return points(millionths, 0, 6);
}

/** An integer grouped by thousands. */
export function count(n: number): string {
  return grouped(BigInt(Math.trunc(n)));
}

function grouped(n: bigint): string {
  return n.toString().replace(/\B(?=(\d{3})+(?!\d))/g, signs().group);
}

const known = new Map<string, { group: string; decimal: string }>();

/** What the shown language puts between thousands, and before a fraction. */
function signs(): { group: string; decimal: string } {
  const name = locale();
  let found = known.get(name);
  if (!found) {
    const parts = new Intl.NumberFormat(name).formatToParts(1_234_567.5);
    const sign = (type: string) => parts.find((part) => part.type === type)?.value;
    found = { group: sign('group') ?? ',', decimal: sign('decimal') ?? '.' };
    known.set(name, found);
  }
  return found;
}

/** What stands before a fraction: `.` or `,`. */
export function decimal(): string {
  return signs().decimal;
}

/** A decimal number that came as text, exactly as it is: `2500.5`. */
export function localized(text: string): string {
  return text.replace('.', decimal());
}

/** A number with a fixed count of decimals, not grouped. */
export function fixed(n: number, decimals: number): string {
  return n.toFixed(decimals).replace('.', decimal());
}

/** How long something took: `<0.1 s`, `3.1 s`, `42.0 s`, `2 min 05 s`. Nothing takes no time at all. */
export function elapsed(ms: number): string {
  const tenths = Math.floor(Math.max(0, ms) / 100);
  if (tenths === 0) return `<0${decimal()}1 s`;
  if (tenths < 600) return `${Math.floor(tenths / 10)}${decimal()}${tenths % 10} s`;
  const seconds = Math.floor(tenths / 10);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} min`;
}

/** A running time against its limit: both in seconds, `3.1 s of 180 s`. */
export function against(elapsedMs: number, budgetMs: number): string {
  const tenths = Math.floor(Math.max(0, elapsedMs) / 100);
  // A lease of 180 s arrives with a few milliseconds less.
  const used = `${Math.floor(tenths / 10)}${decimal()}${tenths % 10} s`;
  return t.device.of(used, `${Math.ceil(budgetMs / 1000)} s`);
}

function two(n: number): string {
  return n.toString().padStart(2, '0');
}

/** The size of files, in thousands as stores and downloads count: `92.1 MB`. */
export function fileSize(bytes: number): string {
  return scaled(bytes, 1000);
}

/** The size of memory, in steps of 1024 as graphics cards are sold: `24.0 GB`. */
export function memorySize(bytes: number): string {
  return scaled(bytes, 1024);
}

function scaled(bytes: number, step: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = Math.max(0, bytes);
  let unit = 0;
  // 999.95 would print as 1000.0: it belongs to the next unit.
  while (unit < units.length - 1 && value >= (unit === 0 ? step : step - 0.05)) {
    value /= step;
    unit += 1;
  }
  return `${unit === 0 ? Math.trunc(value) : fixed(value, 1)} ${units[unit]}`;
}

/** A share from 0 to 1, also where the whole is unknown. */
export function share(part: number, whole: number): number {
  if (!(whole > 0)) return 0;
  return Math.min(1, Math.max(0, part / whole));
}

/** A share in whole per cent; full only when it is full. */
export function percent(fraction: number): string {
  const whole = Math.floor(fraction * 100) / 100;
  return whole.toLocaleString(locale(), { style: 'percent', maximumFractionDigits: 0 });
}

/** A share in whole per cent, rounded. */
export function rounded(fraction: number): string {
  return fraction.toLocaleString(locale(), { style: 'percent', maximumFractionDigits: 0 });
}

/** The start and end of a long hexadecimal text: `0x1f9a…c03b`. */
export function shortened(text: string, head = 6, tail = 4): string {
  return text.length <= head + tail + 1 ? text : `${text.slice(0, head)}…${text.slice(-tail)}`;
}

/** A time of day today, with the date on other days. */
export function when(ms: number, nowMs: number): string {
  const date = new Date(ms);
  const now = new Date(nowMs);
  const time = date.toLocaleTimeString(locale(), {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
  });
  if (date.toDateString() === now.toDateString()) return time;
  const day = date.toLocaleDateString(locale(), { day: 'numeric', month: 'short' });
  return `${day}, ${time}`;
}

/** A full date and time with its zone. */
export function exactly(ms: number): string {
  return new Date(ms).toLocaleString(locale(), {
    dateStyle: 'medium',
    timeStyle: 'long',
  });
}

/** A day: `21 Nov`. */
export function day(ms: number): string {
  return new Date(ms).toLocaleDateString(locale(), { day: 'numeric', month: 'short' });
}

/** A whole date: `3 June 2026`. */
export function date(ms: number): string {
  return new Date(ms).toLocaleDateString(locale(), { dateStyle: 'long' });
}

/** An hour of the day: `14:00`. */
export function hour(ms: number): string {
  return new Date(ms).toLocaleTimeString(locale(), { hour: '2-digit', minute: '2-digit' });
}

/** A day of the week with date, time and zone: `Thu, 26 Nov, 01:00 CET`. */
export function moment(ms: number): string {
  return new Date(ms).toLocaleString(locale(), {
    weekday: 'short',
    day: 'numeric',
    month: 'short',
    hour: '2-digit',
    minute: '2-digit',
    timeZoneName: 'short',
  });
}

/** Time left or mined in the two largest units: `3 d 4 h`, `4 h 05 min`, `5 min`. */
export function span(ms: number): string {
  const minutes = Math.floor(Math.max(0, ms) / 60_000);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${two(minutes % 60)} min`;
  return `${t.common.days(Math.floor(hours / 24))} ${hours % 24} h`;
}

/** Time mined: `42 min`, `7 h 05 min`, `497 h`. */
export function hours(ms: number): string {
  const hours = Math.floor(Math.max(0, ms) / 3_600_000);
  return hours < 48 ? span(ms) : `${count(hours)} h`;
}

const MJ_PER_KWH = 3.6e9;

/** Energy in kilowatt hours: `0.123`, `12.35`, `1234`. */
export function kwh(mj: number): string {
  const n = mj / MJ_PER_KWH;
  return fixed(n, n < 10 ? 3 : n < 1000 ? 2 : 0);
}

/** What energy cost, given in millionths of the currency's unit: with two decimals (four where it is less than one). */
export function cost(micro: number): string {
  const n = micro / 1e6;
  return fixed(n, n > 0 && n < 1 ? 4 : 2);
}

/** Micro-points for a kilowatt hour, rounded down; none without energy. */
export function perKwh(micro: number, mj: number): number | null {
  if (!(mj > 0)) return null;
  return Number((BigInt(Math.trunc(micro)) * BigInt(MJ_PER_KWH)) / BigInt(Math.trunc(mj)));
}
