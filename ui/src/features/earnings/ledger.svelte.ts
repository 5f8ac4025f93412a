// What the Earnings page knows: asked from the program when the page opens, when a job was paid, and
// every quarter of a minute while somebody looks.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type {
  EarningsAnswer,
  EarningsAsk,
  EarningsOverview,
  ErrorBody,
  ExportFormat,
  ExportKind,
  JobFilter,
  JobPage,
  JobRecord,
  PointsKind,
  Receipt,
  ReceiptFilter,
  ReceiptPage,
  Recomputed,
  SeriesBar,
  SeriesStep,
  Tariff,
  TelemetrySeries,
  TelemetrySpan,
} from '../../lib/api/types';
import { once } from '../../lib/once';

export type EarningsView = 'overview' | 'receipts' | 'jobs' | 'sensors';

/** Bars shown of each width. */
export const BARS: Record<SeriesStep, number> = { hour: 48, day: 30, week: 26 };
/** Rows asked for at once. */
const PAGE = 50;
const REFRESH_MS = 15_000;
const SENSORS_MS: Record<TelemetrySpan, number> = {
  ten_minutes: 2_000,
  day: 30_000,
  month: 120_000,
};
/** Typing pauses so long before a search is asked for. */
const TYPING_MS = 250;

type Answered = Exclude<EarningsAnswer, { answer: 'ok' }>;
type Payloads = { [K in Answered['answer']]: Extract<Answered, { answer: K }>['payload'] };

const anyReceipt: ReceiptFilter = {
  text: '',
  kind: null,
  since_ms: null,
  until_ms: null,
  drifted: false,
};
const anyJob: JobFilter = { text: '', outcome: null, since_ms: null };

const receiptKey = (receipt: Receipt) => receipt.event;
const jobKey = (job: JobRecord) => `${job.lease} ${job.ended_ms}`;

/** The newest rows on top of those below, and whether these still follow: where so much is new that rows
 * between them are missing, only the newest stay. */
function onTop<Row>(
  newest: readonly Row[],
  below: readonly Row[],
  key: (row: Row) => string,
): [Row[], boolean] {
  const fresh = new Set(newest.map(key));
  const follows = below.length > newest.length && below.some((row) => fresh.has(key(row)));
  return follows ? [once([...newest, ...below], key), true] : [[...newest], false];
}

export class Ledger {
  view = $state<EarningsView>('overview');
  overview = $state.raw<EarningsOverview | null>(null);
  bars = $state.raw<SeriesBar[] | null>(null);
  step = $state<SeriesStep>('day');
  kind = $state<PointsKind>('llama');
  receiptFilter = $state.raw<ReceiptFilter>(anyReceipt);
  receiptPage = $state.raw<ReceiptPage | null>(null);
  receipts = $state.raw<Receipt[]>([]);
  jobFilter = $state.raw<JobFilter>(anyJob);
  jobPage = $state.raw<JobPage | null>(null);
  jobs = $state.raw<JobRecord[]>([]);
  span = $state<TelemetrySpan>('ten_minutes');
  sensors = $state.raw<TelemetrySeries | null>(null);
  /** Older rows are on their way. */
  loadingOlder = $state(false);
  /** Where the last file lies. */
  savedAs = $state<string | null>(null);
  saving = $state(false);
  /** Why the records cannot be read. */
  error = $state.raw<ErrorBody | null>(null);

  readonly #backend: Backend;
  #watched = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #typing: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;
  /** What the rows at hand were looked for with. */
  #receiptsOf: ReceiptFilter | null = null;
  #jobsOf: JobFilter | null = null;
  /** What went wrong since the last refresh began. */
  #trouble: ErrorBody | null = null;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Keeps the figures fresh until the returned function is called. */
  watch(): () => void {
    this.#watched += 1;
    void this.refresh();
    return () => {
      this.#watched -= 1;
      if (this.#watched === 0) clearTimeout(this.#timer);
    };
  }

  show(view: EarningsView): void {
    this.view = view;
    this.savedAs = null;
    void this.refresh();
  }

  /** A job was paid. */
  settled(): void {
    if (this.#watched > 0 && this.view !== 'sensors') void this.refresh();
  }

  /** Reads what the shown view needs. A reader who has gone further down is not thrown back to the top. */
  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    this.#trouble = null;
    await this.#read();
    // Of several questions one may have failed.
    this.error = this.#trouble;
    if (this.#watched === 0) return;
    clearTimeout(this.#timer);
    const pause = this.view === 'sensors' ? SENSORS_MS[this.span] : REFRESH_MS;
    this.#timer = setTimeout(() => void this.refresh(), pause);
  }

  async #read(): Promise<void> {
    if (this.view === 'overview') {
      const [overview, bars] = await Promise.all([
        this.#ask({ ask: 'overview' }, 'overview'),
        this.#ask({ ask: 'series', by: this.step, count: BARS[this.step] }, 'series'),
      ]);
      if (overview) this.overview = overview;
      if (bars) this.bars = bars;
    } else if (this.view === 'receipts') {
      await this.#firstReceipts();
    } else if (this.view === 'jobs') {
      await this.#firstJobs();
    } else {
      const sensors = await this.#ask({ ask: 'telemetry', span: this.span }, 'telemetry');
      if (sensors) this.sensors = sensors;
    }
  }

  setStep(step: SeriesStep): void {
    this.step = step;
    void this.refresh();
  }

  setSpan(span: TelemetrySpan): void {
    this.span = span;
    void this.refresh();
  }

  filterReceipts(change: Partial<ReceiptFilter>): void {
    this.receiptFilter = { ...this.receiptFilter, ...change };
    this.#soon('text' in change, () => this.#firstReceipts());
  }

  filterJobs(change: Partial<JobFilter>): void {
    this.jobFilter = { ...this.jobFilter, ...change };
    this.#soon('text' in change, () => this.#firstJobs());
  }

  /** Shows the receipts that do not add up. */
  showDrifted(): void {
    this.receiptFilter = { ...anyReceipt, drifted: true };
    this.receipts = [];
    this.show('receipts');
  }

  async olderReceipts(): Promise<void> {
    const before = this.receiptPage?.next ?? null;
    if (before === null || this.loadingOlder) return;
    const filter = this.receiptFilter;
    const page = await this.#older({ ask: 'receipts', filter, before, limit: PAGE }, 'receipts');
    // Meanwhile something else may have been looked for.
    if (!page || filter !== this.receiptFilter || before !== this.receiptPage?.next) return;
    this.receiptPage = page;
    this.receipts = once([...this.receipts, ...page.receipts], receiptKey);
  }

  async olderJobs(): Promise<void> {
    const before = this.jobPage?.next ?? null;
    if (before === null || this.loadingOlder) return;
    const filter = this.jobFilter;
    const page = await this.#older({ ask: 'jobs', filter, before, limit: PAGE }, 'jobs');
    if (!page || filter !== this.jobFilter || before !== this.jobPage?.next) return;
    this.jobPage = page;
    this.jobs = once([...this.jobs, ...page.jobs], jobKey);
  }

  /** A receipt computed again by the program, by the rules it names. */
  async recompute(receipt: Receipt): Promise<Recomputed> {
    const about: EarningsAsk = { ask: 'recompute', receipt };
    const reply = await this.#backend.call({ cmd: 'earnings', payload: { about } });
    const answer = expectReply(reply, 'earnings').payload;
    if (answer.answer !== 'recomputed')
      throw new Error(`expected recomputed, not ${answer.answer}`);
    return answer.payload;
  }

  async setTariff(tariff: Tariff | null): Promise<boolean> {
    const done = await this.#do({ ask: 'tariff', tariff });
    if (done) await this.refresh();
    return done;
  }

  async save(what: ExportKind, format: ExportFormat): Promise<void> {
    this.savedAs = null;
    this.saving = true;
    const saved = await this.#ask({ ask: 'export', what, format, since_ms: null }, 'saved');
    this.saving = false;
    if (saved) this.savedAs = saved.path;
  }

  #soon(typed: boolean, read: () => Promise<void>): void {
    clearTimeout(this.#typing);
    if (typed) this.#typing = setTimeout(() => void read(), TYPING_MS);
    else void read();
  }

  async #older<K extends Answered['answer']>(
    about: EarningsAsk,
    kind: K,
  ): Promise<Payloads[K] | null> {
    this.loadingOlder = true;
    const page = await this.#ask(about, kind);
    this.loadingOlder = false;
    return page;
  }

  async #firstReceipts(): Promise<void> {
    const number = (this.#asked += 1);
    const filter = this.receiptFilter;
    const page = await this.#ask(
      { ask: 'receipts', filter, before: null, limit: PAGE },
      'receipts',
    );
    // An answer to an older question comes too late.
    if (!page || number !== this.#asked) return;
    const below = filter === this.#receiptsOf ? this.receipts : [];
    this.#receiptsOf = filter;
    const [rows, deeper] = onTop(page.receipts, below, receiptKey);
    this.receipts = rows;
    this.receiptPage = deeper ? { ...page, next: this.receiptPage?.next ?? null } : page;
  }

  async #firstJobs(): Promise<void> {
    const number = (this.#asked += 1);
    const filter = this.jobFilter;
    const page = await this.#ask({ ask: 'jobs', filter, before: null, limit: PAGE }, 'jobs');
    if (!page || number !== this.#asked) return;
    const below = filter === this.#jobsOf ? this.jobs : [];
    this.#jobsOf = filter;
    const [rows, deeper] = onTop(page.jobs, below, jobKey);
    this.jobs = rows;
    this.jobPage = deeper ? { ...page, next: this.jobPage?.next ?? null } : page;
  }

  async #do(about: EarningsAsk): Promise<boolean> {
    try {
      await this.#backend.call({ cmd: 'earnings', payload: { about } });
      this.error = null;
      return true;
    } catch (thrown) {
      this.error = asErrorBody(thrown);
      return false;
    }
  }

  async #ask<K extends Answered['answer']>(
    about: EarningsAsk,
    kind: K,
  ): Promise<Payloads[K] | null> {
    try {
      const reply = await this.#backend.call({ cmd: 'earnings', payload: { about } });
      const answer = expectReply(reply, 'earnings').payload;
      if (answer.answer !== kind) throw new Error(`expected ${kind} and got ${answer.answer}`);
      return answer.payload as Payloads[K];
    } catch (thrown) {
      this.#trouble = asErrorBody(thrown);
      this.error = this.#trouble;
      return null;
    }
  }
}
