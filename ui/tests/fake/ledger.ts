// A seeded ledger, as the program would tell it, for tests and for looking at the pages.

import type {
  EarningsAnswer,
  EarningsAsk,
  EarningsOverview,
  JobOutcome,
  JobRecord,
  LogLine,
  Receipt,
  Recomputed,
  SeriesBar,
  SpanTotal,
  TelemetryPoint,
} from '../../src/lib/api/types';
import { NOW_MS, painter, pictureReceipt, receipt, starter } from './samples';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const WEEK = 7 * DAY;

/** A figure that looks like chance and is always the same. */
function noise(n: number): number {
  const x = Math.sin(n * 12.9898) * 43758.5453;
  return x - Math.floor(x);
}

function span(which: SpanTotal['span'], days: number, more: Partial<SpanTotal> = {}): SpanTotal {
  return {
    span: which,
    since_ms: NOW_MS - days * DAY,
    points: { llama: Math.round(days * 1_734_567), waifu: Math.round(days * 412_500) },
    jobs: Math.round(days * 23),
    mined_ms: days * 7 * HOUR,
    energy: { used_mj: days * 7 * 3600 * 214_000, estimated_mj: 0 },
    cost_micro: days * 479_360,
    ...more,
  };
}

export const overview: EarningsOverview = {
  at_ms: NOW_MS,
  time_zone: 'Europe/Berlin',
  rate: {
    state: 'known',
    hour: { llama: 312_400, waifu: 93_750 },
    day: { llama: 7_497_600, waifu: 2_250_000 },
    mined_ms: 900_000,
  },
  spans: [span('today', 1), span('week', 7), span('month', 30), span('lifetime', 71)],
  pending: { jobs: 2, since_ms: NOW_MS - 95_000 },
  models: [
    { model: starter.id, kind: 'llama', points: 31_204_500, jobs: 402 },
    { model: 'dolphin-2.9-llama3-8b', kind: 'llama', points: 20_832_510, jobs: 181 },
    { model: painter.id, kind: 'waifu', points: 12_375_000, jobs: 107 },
  ],
  multipliers: [
    {
      model: starter.id,
      kind: 'llama',
      rule_set: 'practice3',
      factor: 1_000_000,
      multiplier: 1_000_000,
      jobs: 402,
      points: 31_204_500,
    },
    {
      model: 'dolphin-2.9-llama3-8b',
      kind: 'llama',
      rule_set: 'season2',
      factor: 240_000,
      multiplier: 1_150_000,
      jobs: 181,
      points: 20_832_510,
    },
    {
      model: painter.id,
      kind: 'waifu',
      rule_set: 'practice3',
      factor: 1_000_000,
      multiplier: 1_000_000,
      jobs: 107,
      points: 12_375_000,
    },
  ],
  changes: [
    {
      kind: 'llama',
      before: { points: 2_310_000, jobs: 31, mined_ms: 9 * HOUR },
      after: { points: 1_734_567, jobs: 23, mined_ms: 7 * HOUR },
      causes: [
        { cause: 'hours_mined', effect: -513_333 },
        { cause: 'model_mix', effect: -210_000 },
        { cause: 'job_size', effect: 147_900 },
      ],
    },
    {
      kind: 'waifu',
      before: { points: 0, jobs: 0, mined_ms: 9 * HOUR },
      after: { points: 412_500, jobs: 4, mined_ms: 7 * HOUR },
      causes: [{ cause: 'hours_mined', effect: 412_500 }],
    },
  ],
  week: {
    number: 2969,
    from_ms: Date.UTC(2026, 10, 19),
    until_ms: Date.UTC(2026, 10, 26),
    points: { llama: 6_012_400, waifu: 1_437_500 },
    jobs: 83,
    mined_ms: 25 * HOUR,
    energy: { used_mj: 25 * 3600 * 214_000, estimated_mj: 0 },
  },
  weeks: Array.from({ length: 9 }, (_, n) => ({
    number: 2968 - n,
    from_ms: Date.UTC(2026, 10, 19) - (n + 1) * WEEK,
    until_ms: Date.UTC(2026, 10, 19) - n * WEEK,
    points: {
      llama: Math.round(9_000_000 + noise(n) * 6_000_000),
      waifu: Math.round(noise(n + 50) * 3_000_000),
    },
    jobs: 120 + Math.round(noise(n + 9) * 60),
    mined_ms: 48 * HOUR,
    energy: { used_mj: 48 * 3600 * 214_000, estimated_mj: 0 },
  })),
  tariff: { kwh_micro: 320_000, cheap_kwh_micro: 240_000, currency: 'EUR' },
  alarms: [],
  checked: { agree: 1633, differ: 0, unknown: 0 },
  trust: {
    stage: 'watched',
    audited_ppm: 41_667,
    held: 24,
    to_hold: 0,
    alone: false,
    escrow_ms: 7 * 24 * HOUR,
    in_escrow_micro: 7_449_900,
  },
};

/** The same of a machine that has not earned anything. */
export const nothing: EarningsOverview = {
  ...overview,
  rate: { state: 'idle' },
  spans: overview.spans.map((one) => ({
    ...one,
    points: { llama: 0, waifu: 0 },
    jobs: 0,
    mined_ms: 0,
    energy: { used_mj: 0, estimated_mj: 0 },
    cost_micro: null,
  })),
  pending: { jobs: 0, since_ms: null },
  models: [],
  multipliers: [],
  changes: [],
  week: { ...overview.week, points: { llama: 0, waifu: 0 }, jobs: 0 },
  weeks: [],
  tariff: null,
  checked: { agree: 0, differ: 0, unknown: 0 },
  trust: {
    stage: 'new',
    audited_ppm: 1_000_000,
    held: 0,
    to_hold: 10,
    alone: false,
    escrow_ms: 7 * 24 * HOUR,
    in_escrow_micro: 0,
  },
};

/** The same with everything that can be wrong. */
export const troubled: EarningsOverview = {
  ...overview,
  rate: { state: 'estimating', ready_in_ms: 134_000 },
  spans: overview.spans.map((one) => ({
    ...one,
    energy: { used_mj: one.energy.used_mj, estimated_mj: one.energy.used_mj },
  })),
  tariff: null,
  changes: [],
  alarms: [
    { alarm: 'drift', receipts: 3, difference: -15_000 },
    { alarm: 'frozen', jobs: 4, credited_ms: NOW_MS - 3 * HOUR },
    { alarm: 'books', kind: 'llama', receipts: 123_156_257, books: 123_261_257 },
  ],
  checked: { agree: 1630, differ: 3, unknown: 0 },
  trust: {
    stage: 'convicted',
    audited_ppm: 1_000_000,
    held: 0,
    to_hold: 10,
    alone: false,
    escrow_ms: 7 * 24 * HOUR,
    in_escrow_micro: 0,
  },
};

export function series(step: 'hour' | 'day' | 'week', count: number, empty = false): SeriesBar[] {
  const length = { hour: HOUR, day: DAY, week: WEEK }[step];
  const end = Math.ceil(NOW_MS / length) * length;
  return Array.from({ length: count }, (_, n) => {
    const off = empty || noise(n * 3) < 0.25;
    return {
      from_ms: end - (count - n) * length,
      until_ms: end - (count - n - 1) * length,
      points: {
        llama: off ? 0 : Math.round(noise(n) * 2_400_000 + 300_000),
        waifu: off ? 0 : Math.round(noise(n + 100) * 800_000),
      },
      jobs: off ? 0 : Math.round(noise(n) * 30) + 1,
      mined_ms: off ? 0 : Math.round(noise(n) * 8 * HOUR),
      energy: { used_mj: off ? 0 : noise(n) * 8 * 3600 * 214_000, estimated_mj: 0 },
    };
  });
}

const ENDS: [JobOutcome, string | null][] = [
  ['paid', null],
  ['paid', null],
  ['handed_back', 'the miner was stopped'],
  ['paid', null],
  ['late', 'the job took longer than its 180000 ms'],
  ['paid', null],
  ['failed', 'the engine ended without a result'],
  ['withdrawn', 'the payer withdrew it'],
];

export function job(index: number): JobRecord {
  const [outcome, reason] = ENDS[index % ENDS.length] ?? ['paid', null];
  const picture = index % 5 === 3;
  const id = (index + 1).toString(16).padStart(12, '0');
  return {
    job: `01934fff-7a31-7c10-9b1e-${id}`,
    lease: `01934fff-9000-7000-8000-${id}`,
    kind: picture ? 'image' : 'text',
    model: picture ? painter.id : starter.id,
    ended_ms: NOW_MS - 21_000 - index * 137_000,
    outcome,
    reason,
    times:
      index === 5
        ? null
        : {
            loading_ms: index % 4 === 0 ? 1840 : 3,
            waiting_ms: index % 3 === 0 ? 260 : 0,
            computing_ms: 2100 + Math.round(noise(index) * 9000),
            sending_ms: 80 + Math.round(noise(index) * 120),
          },
    points: outcome === 'paid' ? (picture ? 15_625 : 105_000 + index * 1000) : 0,
  };
}

function telemetry(n: number, step: number, estimated: boolean): TelemetryPoint {
  const busy = noise(n) * 0.25 + 0.7;
  return {
    at_ms: NOW_MS - n * step,
    temperature_c: 52 + busy * 18,
    power_w: estimated ? 8 * busy : 180 + busy * 140,
    memory_used_bytes: 9_100_000_000 + Math.round(busy * 4e8),
    load_percent: busy * 100,
    tokens_per_s: n % 7 === 0 ? 0 : 38 + busy * 20,
    pictures_per_min: n % 30 === 4 ? 30 : 0,
    points: { llama: n % 20 === 0 ? 105_000 : 0, waifu: n % 30 === 4 ? 15_625 : 0 },
  };
}

const SAID: [LogLine['level'], string, string][] = [
  ['info', 'neurino_miner::work', 'a job was paid job.id=01934fff-7a31 points.micro=105000'],
  ['info', 'neurino_miner::work', 'finished a job lease.id=01934fff-9000 sent=true'],
  ['warn', 'neurino_miner::work', 'the session ended: the connection to the network was lost'],
  ['info', 'neurino_miner::work', 'took a job job.id=01934fff-7a31 model.id=smollm2-135m-instruct'],
  ['error', 'neurino_app', 'a receipt cannot be recorded: No space left on device'],
  ['info', 'neurino_app', 'neurino 0.1.0 is up network="practice" node=0x1f9a…'],
];

/** The rules of these receipts are simple: a token pays 0.001 points, and every factor is 1. */
function recomputed({ rule_set, quote, usage }: Receipt): Recomputed {
  if (!rule_set.startsWith('practice')) return { verdict: 'unknown', quote: null };
  const units =
    quote.points === 'llama' ? usage.prompt_tokens + usage.completion_tokens : quote.units;
  const base_micro = Math.floor(units * (quote.points === 'llama' ? 1000 : 1e6 / 5_242_880));
  const due = { ...quote, units, base_micro, factor: 1_000_000, amount_micro: base_micro };
  const same = due.amount_micro === quote.amount_micro && due.factor === quote.factor;
  return { verdict: same ? 'agrees' : 'differs', quote: due };
}

/** What the program would answer. */
export function answer(ask: EarningsAsk, what: EarningsOverview): EarningsAnswer {
  const empty = what.checked.agree + what.checked.differ === 0;
  switch (ask.ask) {
    case 'overview':
      return { answer: 'overview', payload: what };
    case 'series':
      return { answer: 'series', payload: series(ask.by, ask.count, empty) };
    case 'receipts': {
      const from = ask.before === null ? 0 : 1_000_000 - ask.before;
      const found = ask.filter.text === 'nobody' || empty ? 0 : 1_000_000;
      const rows = found === 0 ? [] : Array.from({ length: ask.limit }, (_, n) => from + n);
      return {
        answer: 'receipts',
        payload: {
          receipts: rows.map((n) => (n % 5 === 3 ? pictureReceipt(n) : receipt(n))),
          matching: found,
          points: { llama: found * 104_000, waifu: found * 3_000 },
          next: found === 0 ? null : 1_000_000 - from - ask.limit,
        },
      };
    }
    case 'recompute':
      return { answer: 'recomputed', payload: recomputed(ask.receipt) };
    case 'jobs': {
      const all = Array.from({ length: empty ? 0 : 24 }, (_, n) => job(n));
      const { outcome, text } = ask.filter;
      const jobs = all.filter(
        (one) =>
          (outcome === null || one.outcome === outcome) &&
          (text === '' || `${one.model} ${one.reason ?? ''}`.includes(text)),
      );
      const outcomes = (['paid', 'late', 'failed', 'handed_back', 'withdrawn'] as const).map(
        (outcome) => ({ outcome, jobs: all.filter((one) => one.outcome === outcome).length }),
      );
      return {
        answer: 'jobs',
        payload: { jobs, matching: jobs.length, outcomes: empty ? [] : outcomes, next: null },
      };
    }
    case 'telemetry': {
      const step = { ten_minutes: 2_000, day: 60_000, month: 900_000 }[ask.span];
      const slots = { ten_minutes: 300, day: 1440, month: 2880 }[ask.span];
      const points = Array.from({ length: empty ? 0 : slots }, (_, n) =>
        telemetry(slots - 1 - n, step, empty),
      ).filter((_, n) => n < slots * 0.4 || n > slots * 0.55);
      return {
        answer: 'telemetry',
        payload: {
          device: 'NVIDIA GeForce RTX 4090',
          from_ms: NOW_MS - slots * step,
          until_ms: NOW_MS,
          step_ms: step,
          memory_bytes: 25_757_220_864,
          power_estimated: false,
          points,
        },
      };
    }
    case 'logs': {
      const lines = SAID.map(([level, part, text], n) => ({
        at_ms: NOW_MS - n * 31_000,
        level,
        part,
        text,
      })).filter((line) => line.text.includes(ask.filter.text));
      return {
        answer: 'logs',
        payload: { lines, days: ['2026-11-22', '2026-11-21'], more: false },
      };
    }
    case 'export':
      return {
        answer: 'saved',
        payload: { path: `/home/ada/Documents/Neurino/neurino-${ask.what}.${ask.format}` },
      };
    case 'logs_save':
      return { answer: 'saved', payload: { path: '/home/ada/Documents/Neurino/neurino-log.txt' } };
    case 'bundle':
      return {
        answer: 'saved',
        payload: { path: '/home/ada/Documents/Neurino/neurino-bundle.zip' },
      };
    case 'tariff':
      return { answer: 'ok' };
  }
}
