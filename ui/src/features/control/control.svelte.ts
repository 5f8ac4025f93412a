// When the machine mines: the rules as the program has them, and its past decisions.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type {
  Command,
  Entry,
  ErrorBody,
  Order,
  Rules,
  RulesView,
  Section,
} from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Control {
  view = $state.raw<RulesView | null>(null);
  decisions = $state.raw<Entry[] | null>(null);
  /** Why the last change was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  /** The part of the settings that "Change rule" leads to. */
  wanted = $state<Section | null>(null);

  readonly #backend: Backend;
  readonly #turns = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  async load(): Promise<void> {
    if (!this.view) this.refused = null;
    await this.#turns.run(() => this.#send({ cmd: 'rules' }));
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<Rules>): Promise<boolean> {
    this.refused = null;
    return this.#turns.run(async () => {
      if (!this.view) return false;
      const rules = { ...this.view.rules, ...change };
      return this.#send({ cmd: 'rules_set', payload: { rules } });
    });
  }

  async #send(command: Command): Promise<boolean> {
    try {
      this.view = expectReply(await this.#backend.call(command), 'rules').payload;
      return true;
    } catch (thrown) {
      // What was refused matters more than that a later look failed.
      if (command.cmd !== 'rules' || !this.view) this.refused = asErrorBody(thrown);
      return false;
    }
  }

  async loadDecisions(): Promise<void> {
    this.decisions = null;
    try {
      const reply = await this.#backend.call({ cmd: 'decisions' });
      this.decisions = expectReply(reply, 'decisions').payload;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
    }
  }
}

export const snooze = (minutes: number | null): Order => ({ order: 'snooze', minutes });
