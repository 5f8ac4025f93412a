// The words of the Earnings page and of Help.

import type {
  ExportKind,
  JobOutcome,
  LogLevel,
  PointsKind,
  RateCauseKind,
  SeriesStep,
  SpanKind,
  TelemetrySpan,
} from '../api/types';

const spans: Record<SpanKind, string> = {
  today: 'Today',
  week: '7 days',
  month: '30 days',
  lifetime: 'Lifetime',
};

const outcomes: Record<JobOutcome, string> = {
  paid: 'Paid',
  late: 'Late',
  failed: 'Failed',
  handed_back: 'Handed back',
  withdrawn: 'Withdrawn',
  refused: 'Not accepted',
};

const causes: Record<RateCauseKind, [less: string, more: string]> = {
  hours_mined: ['less time mined', 'more time mined'],
  jobs_per_hour: ['fewer jobs an hour', 'more jobs an hour'],
  model_mix: ['models that pay less', 'models that pay more'],
  multiplier: ['a lower multiplier', 'a higher multiplier'],
  job_size: ['smaller jobs', 'larger jobs'],
};

const levels: Record<LogLevel, string> = {
  trace: 'Everything',
  debug: 'Details',
  info: 'Normal',
  warn: 'Warnings',
  error: 'Errors',
};

const kinds: Record<PointsKind, string> = { llama: 'Llama', waifu: 'Waifu' };

export const income = {
  title: 'Earnings',
  views: 'What to look at',
  view: { overview: 'Overview', receipts: 'Receipts', jobs: 'Jobs', sensors: 'Sensors' },
  kinds,
  kind: 'Kind of points',
  now: 'Now',
  spans,
  hours: 'Hours mined',
  perHour: 'an hour',
  estimating: 'estimating…',
  estimatingFor: (time: string) => `needs ${time} more of mining`,
  idle: 'not mining',
  nowHelp: (mined: string) =>
    `Confirmed points of the last 15 minutes over the ${mined} mined in them.`,
  jobs: (n: string) => (n === '1' ? '1 job' : `${n} jobs`),
  since: (day: string) => `since ${day}`,
  hoursToday: (time: string) => `${time} today`,
  confirmed: 'Confirmed: every figure here comes from a receipt that this machine has checked.',
  pendingNone: 'Nothing is pending.',
  pending: (n: number, since: string) =>
    n === 1
      ? `Pending: 1 result waits for its receipt since ${since}. It is not counted yet.`
      : `Pending: ${n} results wait for their receipts, the oldest since ${since}. They are not counted yet.`,
  zone: (zone: string) => `Days begin at midnight, ${zone}.`,
  history: 'Over time',
  steps: { hour: '48 hours', day: '30 days', week: '26 weeks' } satisfies Record<
    SeriesStep,
    string
  >,
  step: 'Width of a bar',
  asTable: 'Show as a table',
  asChart: 'Show as a chart',
  tableOf: (what: string) => `${what}, as a table`,
  when: 'When',
  time: 'Time mined',
  jobsHead: 'Jobs',
  points: 'Points',
  summary: (earning: number, of: number, best: string, amount: string, kind: string) =>
    `${earning} of ${of} earned something. The best was ${best} with ${amount} ${kind} points.`,
  summaryNone: (of: number) => `Nothing was earned in any of these ${of}.`,
  projection: 'Next 24 hours',
  projectionHelp: 'If it goes on like the last 15 minutes, around the clock. Not a promise.',
  projectionIdle: 'Shown after 5 minutes of mining.',
  change: 'Why did my rate change?',
  changeHelp: 'The last 24 hours beside the 24 before.',
  changeYoung: 'Shown once there are two days to compare.',
  changeSame: (kind: string) => `${kind}: as much as the day before.`,
  changeMore: (kind: string, amount: string, share: string) =>
    `${kind}: ${amount} points more than the day before (${share}).`,
  changeLess: (kind: string, amount: string, share: string) =>
    `${kind}: ${amount} points less than the day before (${share}).`,
  changeNew: (kind: string, amount: string) =>
    `${kind}: ${amount} points, and none the day before.`,
  because: 'Mostly because of',
  cause: (kind: RateCauseKind, more: boolean) => causes[kind][more ? 1 : 0],
  effect: (amount: string) => `${amount} points`,
  week: 'Snapshot of the week',
  weekIn: 'Time left',
  weekAt: (when: string) => `Taken ${when}. What is confirmed by then belongs to this week.`,
  weekPending: 'Results that are still pending then count for the week after.',
  weekPractice: 'Practice weeks are counted the same way, and pay nothing.',
  weeks: 'Past weeks',
  weeksNone: 'Past weeks are kept here.',
  weekOf: (from: string, until: string) => `${from} – ${until}`,
  trust: 'Checks',
  trustStage: {
    new: 'New on this network',
    watched: 'Some results are checked',
    established: 'Trusted',
    convicted: 'No more work from this network',
  },
  trustNew: (left: string) =>
    left === '1'
      ? 'Another machine computes every result again. After one more that holds, fewer are checked.'
      : `Another machine computes every result again. After ${left} more that hold, fewer are checked.`,
  trustSome: (each: string) => `Another machine computes about 1 in ${each} results again.`,
  trustAlone: 'Nobody else on this network serves your models, so nobody can check them yet.',
  trustLost:
    'Its results did not hold when others computed them again. If that is wrong, ask whoever runs the network to look at it.',
  trustHeld: (held: string) =>
    held === '1' ? 'One result held so far.' : `${held} results in a row held so far.`,
  trustEscrow: (amount: string, days: string) =>
    `${amount} points of the last ${days} days can still be taken back if a check fails.`,
  energy: 'Energy',
  energyHelp: 'Of the device that computes, while mining.',
  energyEstimated: 'Estimated from its load: this device has no power sensor.',
  energyPartly: (share: string) => `${share} of it is estimated from the load.`,
  kwh: (n: string) => `${n} kWh`,
  cost: 'Cost',
  perKwh: (kind: string) => `${kind}/kWh`,
  perKwhHead: 'Points per kWh',
  price: 'Price of a kWh',
  priceCheap: 'In cheap hours',
  priceNone: 'Set a price to see what it costs.',
  currency: 'Currency',
  priceSave: 'Save the price',
  priceHelp:
    'For example 0.32 and EUR. Leave the price empty to forget it. Cheap hours are those of the weekly schedule; each hour’s energy counts with its own price.',
  priceWrong: 'That is no price between 0 and 1,000,000.',
  breakdown: 'Models and factors',
  breakdownHelp: 'The last 30 days. Points = base × model factor × your multiplier.',
  breakdownNone: 'Each model that earned something appears here.',
  model: 'Model',
  factor: 'Factor',
  multiplier: 'Multiplier',
  multiplierHelp: 'Your multiplier joins holdings and season; a receipt carries it as one figure.',
  rules: 'Rules',
  share: 'Share',
  checked: (n: string) =>
    n === '1'
      ? '1 receipt computed again on this machine: it agrees.'
      : `${n} receipts computed again on this machine: all agree.`,
  checkedUnknown: (n: string) => `${n} follow rules that this version does not know.`,
  export: 'Take it with you',
  exportHelp: 'Written to your documents, for a spreadsheet or a script.',
  exports: { receipts: 'Receipts', jobs: 'Jobs', days: 'Days' } satisfies Record<
    ExportKind,
    string
  >,
  exportAs: (what: string, format: string) => `Save ${what} as ${format}`,
  saved: (path: string) => `Saved as ${path}`,
  drift: (n: number) => (n === 1 ? 'A receipt does not add up' : `${n} receipts do not add up`),
  driftWords: (points: string) =>
    `Computed again by their own rules they differ by ${points} points in all.`,
  driftShow: 'Show them',
  frozen: 'Results are delivered, and nothing is credited',
  frozenWords: (n: number, since: string | null) =>
    `${n === 1 ? '1 result has' : `${n} results have`} no receipt. ${
      since ? `The last credit was ${since}.` : 'There was no credit yet.'
    }`,
  frozenHint: 'Check the connection to the network; if it stays so, tell its operator.',
  books: 'The network has paid more than this machine has receipts for',
  booksWords: (kind: string, books: string, receipts: string) =>
    `${kind} points: ${books} in the books of the practice network, ${receipts} in the receipts here.`,
  booksHint: 'A file of receipts was lost or changed. The books are what counts.',
  search: 'Search',
  searchReceipts: 'Model or rules',
  searchJobs: 'Model, reason or job',
  all: 'All',
  onlyDrift: 'Only those that do not add up',
  receiptsFound: (n: string) => (n === '1' ? '1 receipt' : `${n} receipts`),
  sum: (llama: string, waifu: string) => `${llama} Llama and ${waifu} Waifu points`,
  noneFound: 'Nothing matches.',
  jobsTitle: 'Job history',
  jobsNone: 'Each job that ends leaves a line here: what came of it, and where its time went.',
  jobsKept: 'The last 50,000 jobs are kept.',
  outcome: 'Outcome',
  outcomes,
  took: 'Took',
  reason: 'Why',
  stages: {
    loading_ms: 'loading',
    waiting_ms: 'waiting',
    computing_ms: 'computing',
    sending_ms: 'sending',
  },
  older: 'Show older',
  sensors: 'Sensors',
  span: 'How far back',
  telemetry: {
    ten_minutes: '10 minutes',
    day: '24 hours',
    month: '30 days',
  } satisfies Record<TelemetrySpan, string>,
  sensorsNone: 'The sensors are recorded while mining. Nothing was recorded in this span.',
  sensorRows: (n: number) => `The last ${n} rows; the charts show all.`,
  sensorsHelp: (device: string) =>
    `${device}, recorded while mining. The last 10 minutes survive a crash.`,
  charts: {
    temperature: 'Temperature',
    power: 'Power',
    memory: 'Memory',
    load: 'Load',
    tokens: 'Tokens a second',
    pictures: 'Pictures a minute',
    llama: 'Llama points',
    waifu: 'Waifu points',
  },
  estimated: 'estimated',
  lineSummary: (what: string, latest: string, low: string, high: string) =>
    `${what}: last ${latest}, lowest ${low}, highest ${high}.`,
  upTo: (value: string) => `scale to ${value}`,
  noSensor: 'No sensor',
  empty: 'No points yet. Press Start on Home; the first receipt appears here.',
  failed: 'The records could not be read',
} as const;

export const help = {
  title: 'Help',
  logs: 'Log',
  logsHelp: 'What the program did, newest first. Addresses and names are shortened.',
  show: 'Show the log',
  hide: 'Hide the log',
  level: 'At least',
  levels,
  day: 'Day (UTC)',
  anyDay: 'Every day',
  search: 'Search',
  refresh: 'Refresh',
  save: 'Save as a file',
  copy: 'Copy these lines',
  none: 'No line matches.',
  more: 'Older lines match too. Narrow the search, or save them all as a file.',
  bundle: 'Bundle for support',
  bundleHelp:
    'One file with checks, settings, log and sensors. It holds no key, no prompt and no full address.',
  bundleSave: 'Save the bundle',
  saved: (path: string) => `Saved as ${path}`,
  list: 'Log lines',
} as const;
