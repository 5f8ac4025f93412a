// The window's one state: the last snapshot as the program pushed it, and what is under way.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type {
  CardChoice,
  CatalogueCommand,
  CatalogueView,
  Check,
  Command,
  DataPlace,
  ErrorBody,
  Event,
  JobKind,
  LibraryAction,
  MiningState,
  ModelId,
  OnClose,
  Order,
  OwnModelView,
  PointsKind,
  Preferences,
  Receipt,
  Reply,
  Snapshot,
  StopMode,
} from '../../lib/api/types';
import { Alerts } from '../alerts/alerts.svelte';
import { Chat } from '../chat/chat.svelte';
import { Ledger } from '../earnings/ledger.svelte';
import { InTurn } from '../../lib/in-turn';
import { once } from '../../lib/once';
import { Journal } from '../help/journal.svelte';
import { Control } from '../control/control.svelte';
import { Filter } from '../filter/filter.svelte';
import { Hotkey } from '../hotkey/hotkey.svelte';
import { Limits } from '../library/limits.svelte';
import { Notices } from '../notices/notices.svelte';
import { Power } from '../power/power.svelte';
import { Studio } from '../picture/studio.svelte';
import { Update } from '../update/update.svelte';
import { Wallet } from '../wallet/wallet.svelte';

/** Whether the program answers. */
export type Phase = 'connecting' | 'ready' | 'lost';

/** What the person asked for and the program has not shown yet. */
export type Pending = 'start' | StopMode;

/** A payment just made, shown for a moment beside the points. */
export interface Gain {
  micro: number;
  points: PointsKind;
  event: string;
}

/** How long a request may look pending before the view shows the program's state again. */
const PENDING_MS = 4000;
const GAIN_MS = 4000;

const settledBy: Record<Pending, readonly MiningState[]> = {
  start: ['starting', 'waiting', 'working', 'paused', 'needs_you'],
  finish: ['finishing', 'stopped', 'paused', 'needs_you'],
  now: ['stopped', 'needs_you'],
};

export class Session {
  phase = $state<Phase>('connecting');
  snapshot = $state.raw<Snapshot | null>(null);
  preferences = $state.raw<Preferences | null>(null);
  /** Why the program does not answer. */
  lost = $state.raw<ErrorBody | null>(null);
  /** Why the last command did not work, until dismissed. */
  notice = $state.raw<ErrorBody | null>(null);
  pending = $state<Pending | null>(null);
  gain = $state.raw<Gain | null>(null);
  /** The person closed the window and has not chosen yet what that means. */
  closeAsked = $state(false);
  checks = $state.raw<Check[] | null>(null);
  checking = $state(false);
  /** Receipts older than those of the snapshot, once asked for. */
  older = $state.raw<Receipt[]>([]);
  olderEnd = $state(false);
  loadingOlder = $state(false);

  /** The settings should open where cards are switched. */
  cardsWanted = $state(false);

  readonly chat: Chat;
  readonly studio: Studio;
  readonly ledger: Ledger;
  readonly journal: Journal;
  readonly wallet: Wallet;
  readonly control: Control;
  readonly power: Power;
  readonly alerts: Alerts;
  readonly update: Update;
  readonly notices: Notices;
  readonly filter: Filter;
  readonly hotkey: Hotkey;
  readonly limits: Limits;
  /** What the Playground makes. */
  making = $state<JobKind>('text');
  readonly #backend: Backend;
  readonly #changes = new InTurn();
  /** The preferences as the program has them, and changes that wait for their turn. */
  #saved: Preferences | null = null;
  #unsaved: readonly Partial<Preferences>[] = [];
  #stopListening: (() => void) | null = null;
  #pendingTimer: ReturnType<typeof setTimeout> | undefined;
  #gainTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.chat = new Chat(backend);
    this.studio = new Studio(backend);
    this.ledger = new Ledger(backend);
    this.journal = new Journal(backend);
    this.wallet = new Wallet(backend);
    this.control = new Control(backend);
    this.power = new Power(backend);
    this.alerts = new Alerts(backend);
    this.update = new Update(backend);
    this.notices = new Notices(backend);
    this.filter = new Filter(backend);
    this.hotkey = new Hotkey(backend);
    this.limits = new Limits(backend);
  }

  /** Listens, then reads the state; may be called again after a loss. */
  async connect(): Promise<void> {
    this.phase = 'connecting';
    this.lost = null;
    this.#stopListening?.();
    let pushed = false;
    try {
      this.#stopListening = await this.#backend.listen((event) => {
        pushed ||= event.event === 'snapshot';
        this.receive(event);
      });
      const reply = expectReply(await this.#backend.call({ cmd: 'snapshot' }), 'snapshot');
      // A pushed snapshot is newer than the answer that was on its way.
      if (!pushed) this.#apply(reply.payload);
      const preferences = await this.#backend.call({ cmd: 'preferences' });
      this.#saved = expectReply(preferences, 'preferences').payload;
      this.preferences = this.#saved;
      await this.wallet.connect();
      this.phase = 'ready';
      void this.control.load();
    } catch (thrown) {
      this.lost = asErrorBody(thrown);
      this.phase = 'lost';
    }
  }

  /** Takes in one event. */
  receive(event: Event): void {
    switch (event.event) {
      case 'snapshot':
        this.#apply(event.payload);
        break;
      case 'settled':
        this.#showGain(event.payload);
        this.chat.settled(event.payload);
        this.studio.settled(event.payload);
        this.ledger.settled();
        break;
      case 'chat':
        this.chat.update(event.payload.chat, event.payload.update);
        break;
      case 'picture':
        this.studio.update(event.payload.picture, event.payload.update);
        break;
      case 'close_requested':
        this.closeAsked = true;
        break;
    }
  }

  start(): Promise<boolean> {
    return this.#ask('start', { cmd: 'mining_start' });
  }

  stop(mode: StopMode): Promise<boolean> {
    return this.#ask(mode, { cmd: 'mining_stop', payload: { mode } });
  }

  /** A pause, or letting the rules decide. */
  order(order: Order): Promise<boolean> {
    return this.#do({ cmd: 'mining_order', payload: { order } });
  }

  fetchModel(model: ModelId): Promise<boolean> {
    return this.#do({ cmd: 'model_fetch', payload: { model } });
  }

  /** Whether, what for and under what name a card is used; why not, if it was refused. */
  async chooseCard(card: string, choice: CardChoice): Promise<ErrorBody | null> {
    try {
      await this.#backend.call({ cmd: 'card_choose', payload: { card, choice } });
      return null;
    } catch (thrown) {
      return asErrorBody(thrown);
    }
  }

  /** A path that the person chooses in the system's dialog; null if none, or if it could not open. */
  async choosePath(kind: 'file' | 'folder'): Promise<string | null> {
    const action = kind === 'file' ? 'choose_file' : 'choose_folder';
    const reply = await this.#call({ cmd: 'window', payload: { action } });
    return reply?.reply === 'chosen' ? reply.payload.path : null;
  }

  /** Where everything lies on this machine; null where the program cannot tell. */
  async dataPlaces(): Promise<DataPlace[] | null> {
    const reply = await this.#call({ cmd: 'data' });
    return reply?.reply === 'data' ? reply.payload : null;
  }

  /** What a file or folder is that may be a model. Rejects where it is none. */
  async lookAtModel(path: string): Promise<OwnModelView> {
    const reply = await this.#backend.call({ cmd: 'own_model', payload: { do: 'look', path } });
    return expectReply(reply, 'own_model').payload;
  }

  /** Takes in a model of the person's own; why not, if it was refused. */
  async addModel(path: string, id: string): Promise<ErrorBody | null> {
    try {
      await this.#backend.call({ cmd: 'own_model', payload: { do: 'add', path, id } });
      return null;
    } catch (thrown) {
      return asErrorBody(thrown);
    }
  }

  /** The network's lists and the signed catalogue. Rejects where it is refused. */
  async catalogue(command: CatalogueCommand): Promise<CatalogueView> {
    const reply = await this.#backend.call({ cmd: 'catalogue', payload: command });
    return expectReply(reply, 'catalogue').payload;
  }

  /** Downloads, the drive and the library as a whole. */
  library(action: LibraryAction): Promise<boolean> {
    return this.#do({ cmd: 'library', payload: action });
  }

  async runDoctor(): Promise<void> {
    if (this.checking) return;
    this.checking = true;
    const reply = await this.#call({ cmd: 'doctor' });
    if (reply?.reply === 'doctor') this.checks = reply.payload;
    this.checking = false;
  }

  async loadOlderReceipts(limit = 50): Promise<void> {
    if (this.loadingOlder) return;
    this.loadingOlder = true;
    const shown = this.receipts;
    const last = shown[shown.length - 1];
    const payload = { before_ms: last?.settled_at_ms ?? null, limit };
    const reply = await this.#call({ cmd: 'receipts', payload });
    this.loadingOlder = false;
    if (reply?.reply !== 'receipts') return;
    this.older = [...this.older, ...reply.payload];
    this.olderEnd = reply.payload.length < limit;
  }

  /** All receipts at hand, newest first, each once. */
  get receipts(): Receipt[] {
    return once([...(this.snapshot?.receipts ?? []), ...this.older], (receipt) => receipt.event);
  }

  /** Shows a change at once and saves it; false where it was refused and is taken back. */
  setPreferences(change: Partial<Preferences>): Promise<boolean> {
    if (!this.preferences) return Promise.resolve(false);
    this.notice = null;
    this.#unsaved = [...this.#unsaved, change];
    this.preferences = { ...this.preferences, ...change };
    return this.#changes.run(async () => {
      const preferences = { ...this.#saved, ...change } as Preferences;
      let saved = true;
      try {
        await this.#backend.call({ cmd: 'preferences_set', payload: { preferences } });
        this.#saved = preferences;
      } catch (thrown) {
        this.notice = asErrorBody(thrown);
        saved = false;
      }
      // Those that wait for their turn still show.
      this.#unsaved = this.#unsaved.filter((one) => one !== change);
      this.preferences = Object.assign({}, this.#saved, ...this.#unsaved) as Preferences;
      return saved;
    });
  }

  /** The answer to the question what closing the window means. */
  async answerClose(choice: Exclude<OnClose, 'ask'>): Promise<void> {
    this.closeAsked = false;
    // A choice that could not be saved is still carried out now; it is asked again next time.
    await this.setPreferences({ on_close: choice });
    const action = choice === 'tray' ? 'hide' : 'quit';
    await this.#do({ cmd: 'window', payload: { action } });
  }

  #apply(snapshot: Snapshot): void {
    const before = this.snapshot?.receipts;
    this.snapshot = snapshot;
    this.limits.told(snapshot.library.settings);
    // What the snapshot drops from its twenty would leave a hole above the older ones.
    if (before && this.older.length > 0) {
      const now = new Set(snapshot.receipts.map((receipt) => receipt.event));
      const dropped = before.filter((receipt) => !now.has(receipt.event));
      if (dropped.length > 0) this.older = [...dropped, ...this.older];
    }
    this.chat.models = snapshot.models.filter((model) => model.kind === 'text');
    this.studio.models = snapshot.models.filter((model) => model.kind === 'image');
    this.chat.payments.identity = snapshot.identity;
    this.studio.payments.identity = snapshot.identity;
    if (this.pending && settledBy[this.pending].includes(snapshot.mining.state)) {
      this.#setPending(null);
    }
  }

  async #ask(pending: Pending, command: Command): Promise<boolean> {
    this.#setPending(pending);
    const done = await this.#do(command);
    if (!done) this.#setPending(null);
    return done;
  }

  #setPending(pending: Pending | null): void {
    clearTimeout(this.#pendingTimer);
    this.pending = pending;
    if (pending) {
      this.#pendingTimer = setTimeout(() => (this.pending = null), PENDING_MS);
    }
  }

  #showGain(receipt: Receipt): void {
    clearTimeout(this.#gainTimer);
    this.gain = {
      micro: receipt.quote.amount_micro,
      points: receipt.quote.points,
      event: receipt.event,
    };
    this.#gainTimer = setTimeout(() => (this.gain = null), GAIN_MS);
  }

  async #do(command: Command): Promise<boolean> {
    return (await this.#call(command)) !== null;
  }

  async #call(command: Command): Promise<Reply | null> {
    this.notice = null;
    try {
      return await this.#backend.call(command);
    } catch (thrown) {
      this.notice = asErrorBody(thrown);
      return null;
    }
  }
}
