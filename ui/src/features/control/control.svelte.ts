// When the machine mines: the rules as the program has them, and its past decisions.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { Entry, ErrorBody, Order, Rules, RulesView, Section } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Control {
  view = $state.raw<RulesView | null>(null);
  decisions = $state.raw<Entry[] | null>(null);
  /** Why the last change was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  /** The part of the settings that "Change rule" leads to. */
  wanted = $state<Section | null>(null);

  readonly #backend: Backend;
  readonly #changes = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  async load(): Promise<void> {
    try {
      this.view = expectReply(await this.#backend.call({ cmd: 'rules' }), 'rules').payload;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
    }
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<Rules>): Promise<boolean> {
    return this.#changes.run(() => this.#save(change));
  }

  async #save(change: Partial<Rules>): Promise<boolean> {
    if (!this.view) return false;
    this.refused = null;
    const rules = { ...this.view.rules, ...change };
    try {
      const reply = await this.#backend.call({ cmd: 'rules_set', payload: { rules } });
      this.view = expectReply(reply, 'rules').payload;
      return true;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
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
