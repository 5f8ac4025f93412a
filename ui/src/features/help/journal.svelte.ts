// The log and the bundle, as Help shows them: read when somebody asks.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type {
  EarningsAnswer,
  EarningsAsk,
  ErrorBody,
  LogFilter,
  LogPage,
} from '../../lib/api/types';

/** Lines asked for at once. */
const LINES = 500;
const TYPING_MS = 250;

export class Journal {
  open = $state(false);
  filter = $state.raw<LogFilter>({ text: '', level: 'info', day: null });
  page = $state.raw<LogPage | null>(null);
  savedAs = $state<string | null>(null);
  bundledAs = $state<string | null>(null);
  busy = $state(false);
  error = $state.raw<ErrorBody | null>(null);

  readonly #backend: Backend;
  #typing: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  toggle(): void {
    this.open = !this.open;
    if (this.open) void this.read();
  }

  change(change: Partial<LogFilter>): void {
    this.filter = { ...this.filter, ...change };
    clearTimeout(this.#typing);
    if ('text' in change) this.#typing = setTimeout(() => void this.read(), TYPING_MS);
    else void this.read();
  }

  async read(): Promise<void> {
    const number = (this.#asked += 1);
    const answer = await this.#ask({ ask: 'logs', filter: this.filter, limit: LINES });
    if (answer?.answer === 'logs' && number === this.#asked) this.page = answer.payload;
  }

  async save(): Promise<void> {
    this.savedAs = null;
    const answer = await this.#ask({ ask: 'logs_save', filter: this.filter });
    if (answer?.answer === 'saved') this.savedAs = answer.payload.path;
  }

  async bundle(): Promise<void> {
    this.bundledAs = null;
    this.busy = true;
    const answer = await this.#ask({ ask: 'bundle' });
    this.busy = false;
    if (answer?.answer === 'saved') this.bundledAs = answer.payload.path;
  }

  async #ask(about: EarningsAsk): Promise<EarningsAnswer | null> {
    try {
      const reply = await this.#backend.call({ cmd: 'earnings', payload: { about } });
      this.error = null;
      return expectReply(reply, 'earnings').payload;
    } catch (thrown) {
      this.error = asErrorBody(thrown);
      return null;
    }
  }
}
