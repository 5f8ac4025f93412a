// The Playground's pictures: wishes out, previews and pictures in, each a small state machine.

import { asErrorBody, type Backend } from '../../lib/api/backend';
import type {
  ErrorBody,
  ImageDefaults,
  ImageJob,
  MicroPoints,
  ModelId,
  ModelStatus,
  PictureUpdate,
  Png,
  Receipt,
} from '../../lib/api/types';
import { Payments } from '../earnings/payments';

/** Where a picture stands. `done`, `failed` and `cancelled` are terminal. */
export type PictureStatus = 'sending' | 'queued' | 'drawing' | 'done' | 'failed' | 'cancelled';

/** One picture. */
export interface Picture {
  /** Names the picture's events. */
  id: string;
  job: ImageJob;
  status: PictureStatus;
  /** The picture, or what it looks like so far. */
  png: Png | null;
  error: ErrorBody | null;
  durationMs: number | null;
  /** What this machine was paid for it, where a receipt matches. */
  earned: MicroPoints | null;
  doneAtMs: number | null;
  savedAs: string | null;
  saveError: ErrorBody | null;
}

/** What the person set; what is null is as the model likes it. */
export interface Wishes {
  negative: string;
  width: number | null;
  height: number | null;
  steps: number | null;
  guidance: number | null;
  /** Another one for each picture if null. */
  seed: number | null;
}

/** Limits of the contract. */
export const SIDE_MIN = 32;
export const SIDE_MAX = 2048;
export const STEPS_LIMIT = 35;
export const GUIDANCE_MAX = 30;
/** Seeds of the reference's generator have 32 bits. */
const SEEDS = 2 ** 32;

/** Pictures kept in the window; each may have megabytes. */
const KEPT = 24;

const terminal: readonly PictureStatus[] = ['done', 'failed', 'cancelled'];

const noDefaults: ImageDefaults = {
  width: 512,
  height: 512,
  steps: 20,
  guidance: 7,
  negative_prompt: '',
  side_multiple: 8,
};

export class Studio {
  pictures = $state<Picture[]>([]);
  draft = $state('');
  wishes = $state<Wishes>({
    negative: '',
    width: null,
    height: null,
    steps: null,
    guidance: null,
    seed: null,
  });
  /** Whether saved files say what they were made with. */
  withSettings = $state(false);
  /** The catalogue's image models, as the last snapshot has them. */
  models = $state.raw<ModelStatus[]>([]);
  /** Receipts that may be for what was asked here. */
  readonly payments = new Payments();
  #picked = $state<ModelId | null>(null);

  readonly #backend: Backend;
  readonly #now: () => number;
  readonly #random: () => number;
  #serial = 0;

  constructor(backend: Backend, now: () => number = Date.now, random: () => number = Math.random) {
    this.#backend = backend;
    this.#now = now;
    this.#random = random;
  }

  /** The picture under way. */
  get running(): Picture | null {
    const last = this.pictures[this.pictures.length - 1];
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

  /** What suits the chosen model. */
  get defaults(): ImageDefaults {
    return this.models.find((m) => m.id === this.model)?.image ?? noDefaults;
  }

  get canSend(): boolean {
    return this.draft.trim() !== '' && this.running === null && this.model !== null;
  }

  /** Sends the draft; it stays, to be changed for the next picture. */
  async send(): Promise<void> {
    const model = this.model;
    if (!this.canSend || model === null) return;
    const { wishes, defaults } = this;
    await this.#ask({
      model,
      prompt: this.draft.trim(),
      negative_prompt: wishes.negative.trim() || defaults.negative_prompt,
      width: wishes.width ?? defaults.width,
      height: wishes.height ?? defaults.height,
      steps: wishes.steps ?? defaults.steps,
      guidance: wishes.guidance ?? defaults.guidance,
      seed: wishes.seed ?? this.#anySeed(),
      preview: true,
    });
  }

  /** The same words with another seed, or the same seed after a failure. */
  async again(picture: Picture): Promise<void> {
    if (this.running) return;
    const seed = picture.status === 'done' ? this.#anySeed() : picture.job.seed;
    if (picture.status !== 'done') {
      this.pictures = this.pictures.filter((one) => one.id !== picture.id);
    }
    await this.#ask({ ...picture.job, seed });
  }

  /** Withdraws the picture under way. */
  async cancel(): Promise<void> {
    const picture = this.running;
    if (!picture) return;
    picture.status = 'cancelled';
    picture.png = null;
    try {
      const payload = { picture: picture.id };
      await this.#backend.call({ cmd: 'picture_cancel', payload });
    } catch {
      // It may have ended by itself meanwhile; either way nobody waits for it any more.
    }
  }

  /** Starts over; a picture under way is withdrawn. */
  async clear(): Promise<void> {
    const cancelled = this.cancel();
    this.pictures = [];
    await cancelled;
  }

  /** Writes a picture to the person's folder. */
  async save(picture: Picture): Promise<void> {
    if (picture.png === null) return;
    picture.saveError = null;
    try {
      const settings = this.withSettings ? $state.snapshot(picture.job) : null;
      const payload = { png: picture.png, settings };
      const reply = await this.#backend.call({ cmd: 'picture_save', payload });
      if (reply.reply === 'saved') picture.savedAs = reply.payload.path;
    } catch (thrown) {
      picture.saveError = asErrorBody(thrown);
    }
  }

  /** Takes in one step of a picture; steps of ended or unknown ones are left aside. */
  update(id: string, update: PictureUpdate): void {
    const picture = this.pictures.find((one) => one.id === id);
    if (!picture || terminal.includes(picture.status)) return;
    switch (update.kind) {
      case 'queued':
        if (picture.status === 'sending') picture.status = 'queued';
        break;
      case 'preview':
        picture.status = 'drawing';
        picture.png = update.png;
        break;
      case 'done':
        picture.status = 'done';
        picture.png = update.png;
        picture.durationMs = update.duration_ms;
        picture.doneAtMs = this.#now();
        this.#match();
        break;
      case 'failed':
        picture.png = null;
        picture.status = update.error.code === 'cancelled' ? 'cancelled' : 'failed';
        if (picture.status === 'failed') picture.error = update.error;
        break;
    }
  }

  /** Takes in a payment; a picture of the same model and size at about the same time was it. */
  settled(receipt: Receipt): void {
    if (this.payments.add(receipt, this.#now())) this.#match();
  }

  #anySeed(): number {
    return Math.floor(this.#random() * SEEDS);
  }

  async #ask(job: ImageJob): Promise<void> {
    this.#serial += 1;
    const id = `picture-${this.#now().toString(36)}-${this.#serial}`;
    this.pictures.push({
      id,
      job,
      status: 'sending',
      png: null,
      error: null,
      durationMs: null,
      earned: null,
      doneAtMs: null,
      savedAs: null,
      saveError: null,
    });
    if (this.pictures.length > KEPT) this.pictures.splice(0, this.pictures.length - KEPT);
    try {
      await this.#backend.call({ cmd: 'picture_send', payload: { picture: id, job } });
    } catch (thrown) {
      this.update(id, { kind: 'failed', error: asErrorBody(thrown) });
    }
  }

  /** Pairs pictures with receipts, in whichever order the two arrived. Each receipt counts once. */
  #match(): void {
    for (const picture of this.pictures) {
      const { job, doneAtMs } = picture;
      if (picture.status !== 'done' || picture.earned !== null || doneAtMs === null) continue;
      picture.earned = this.payments.claim(
        doneAtMs,
        (receipt) =>
          receipt.quote.points === 'waifu' &&
          receipt.model === job.model &&
          receipt.quote.units === job.width * job.height * job.steps,
      );
    }
  }
}
