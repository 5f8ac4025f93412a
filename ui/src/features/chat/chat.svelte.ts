// The Playground's conversation: questions out, answers in, each turn a small state machine.

import { asErrorBody, type Backend } from '../../lib/api/backend';
import type {
  ChatMessage,
  ChatUpdate,
  ErrorBody,
  MicroPoints,
  ModelId,
  ModelStatus,
  Receipt,
  Usage,
} from '../../lib/api/types';
import { Payments } from '../earnings/payments';

/** Where an answer stands. `done`, `failed` and `cancelled` are terminal. */
export type TurnStatus = 'sending' | 'queued' | 'answering' | 'done' | 'failed' | 'cancelled';

/** One question and its answer. */
export interface Turn {
  /** Names the answer's events. */
  id: string;
  model: ModelId;
  question: string;
  answer: string;
  status: TurnStatus;
  error: ErrorBody | null;
  usage: Usage | null;
  durationMs: number | null;
  /** What this machine was paid for the answer, where a receipt matches. */
  earned: MicroPoints | null;
  doneAtMs: number | null;
}

/** Limits of the contract. */
export const MAX_TOKENS_LIMIT = 4096;
export const TEMPERATURE_LIMIT = 2;

const terminal: readonly TurnStatus[] = ['done', 'failed', 'cancelled'];

export class Chat {
  turns = $state<Turn[]>([]);
  draft = $state('');
  temperature = $state(0.3);
  maxTokens = $state(256);
  /** The catalogue, as the last snapshot has it. */
  models = $state.raw<ModelStatus[]>([]);
  /** Receipts that may be for what was asked here. */
  readonly payments = new Payments();
  #picked = $state<ModelId | null>(null);

  readonly #backend: Backend;
  readonly #now: () => number;
  #serial = 0;

  constructor(backend: Backend, now: () => number = Date.now) {
    this.#backend = backend;
    this.#now = now;
  }

  /** The answer under way. */
  get running(): Turn | null {
    const last = this.turns[this.turns.length - 1];
    return last && !terminal.includes(last.status) ? last : null;
  }

  /** The chosen model, or the readiest of the catalogue. */
  get model(): ModelId | null {
    if (this.#picked && this.models.some((m) => m.id === this.#picked)) return this.#picked;
    const loaded = this.models.find((m) => m.state.state === 'loaded');
    const ready = this.models.find((m) => m.state.state === 'ready');
    return (loaded ?? ready ?? this.models[0])?.id ?? null;
  }

  set model(id: ModelId | null) {
    this.#picked = id;
  }

  get canSend(): boolean {
    return this.draft.trim() !== '' && this.running === null && this.model !== null;
  }

  /** Sends the draft. */
  async send(): Promise<void> {
    const model = this.model;
    if (!this.canSend || model === null) return;
    const question = this.draft.trim();
    this.draft = '';
    await this.#ask(question, model);
  }

  /** Asks the last question again, with what was said before it. */
  async retry(): Promise<void> {
    const last = this.turns[this.turns.length - 1];
    if (!last || this.running) return;
    this.turns.pop();
    await this.#ask(last.question, this.model ?? last.model);
  }

  /** Withdraws the answer under way; what has arrived stays. */
  async cancel(): Promise<void> {
    const turn = this.running;
    if (!turn) return;
    turn.status = 'cancelled';
    try {
      await this.#backend.call({ cmd: 'chat_cancel', payload: { chat: turn.id } });
    } catch {
      // The answer may have ended by itself meanwhile; either way nobody waits for it any more.
    }
  }

  /** Starts over; an answer under way is withdrawn. */
  async clear(): Promise<void> {
    const cancelled = this.cancel();
    this.turns = [];
    await cancelled;
  }

  /** Takes in one step of an answer; steps of ended or unknown answers are left aside. */
  update(chat: string, update: ChatUpdate): void {
    const turn = this.turns.find((one) => one.id === chat);
    if (!turn || terminal.includes(turn.status)) return;
    switch (update.kind) {
      case 'queued':
        if (turn.status === 'sending') turn.status = 'queued';
        break;
      case 'delta':
        turn.status = 'answering';
        turn.answer += update.text;
        break;
      case 'done':
        turn.status = 'done';
        turn.usage = update.usage;
        turn.durationMs = update.duration_ms;
        turn.doneAtMs = this.#now();
        this.#match();
        break;
      case 'failed':
        this.#fail(turn, update.error);
        break;
    }
  }

  /** Takes in a payment; an answer with the same model and tokens at about the same time was it. */
  settled(receipt: Receipt): void {
    if (this.payments.add(receipt, this.#now())) this.#match();
  }

  /** The conversation so far as the network wants it; questions without an answer are left out. */
  history(): ChatMessage[] {
    return this.turns
      .filter((turn) => turn.answer !== '')
      .flatMap((turn): ChatMessage[] => [
        { role: 'user', content: turn.question },
        { role: 'assistant', content: turn.answer },
      ]);
  }

  async #ask(question: string, model: ModelId): Promise<void> {
    const messages: ChatMessage[] = [...this.history(), { role: 'user', content: question }];
    this.#serial += 1;
    const id = `chat-${this.#now().toString(36)}-${this.#serial}`;
    this.turns.push({
      id,
      model,
      question,
      answer: '',
      status: 'sending',
      error: null,
      usage: null,
      durationMs: null,
      earned: null,
      doneAtMs: null,
    });
    const payload = {
      chat: id,
      model,
      messages,
      temperature: this.temperature,
      max_tokens: this.maxTokens,
    };
    try {
      await this.#backend.call({ cmd: 'chat_send', payload });
    } catch (thrown) {
      this.update(id, { kind: 'failed', error: asErrorBody(thrown) });
    }
  }

  #fail(turn: Turn, error: ErrorBody): void {
    if (error.code === 'cancelled') {
      turn.status = 'cancelled';
      return;
    }
    turn.status = 'failed';
    turn.error = error;
  }

  /** Pairs answers with receipts, in whichever order the two arrived. Each receipt counts once. */
  #match(): void {
    for (const turn of this.turns) {
      const { usage, doneAtMs } = turn;
      if (turn.status !== 'done' || turn.earned !== null || !usage || doneAtMs === null) continue;
      turn.earned = this.payments.claim(
        doneAtMs,
        (receipt) =>
          receipt.model === turn.model &&
          receipt.usage.prompt_tokens === usage.prompt_tokens &&
          receipt.usage.completion_tokens === usage.completion_tokens,
      );
    }
  }
}
