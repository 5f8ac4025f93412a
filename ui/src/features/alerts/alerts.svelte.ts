// What the person is told without asking: the rules, and what was told, as the program has them.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { AlertRules, AlertsCommand, AlertsView, ErrorBody } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Alerts {
  view = $state.raw<AlertsView | null>(null);
  /** Why the last change was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #turns = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<AlertRules>): Promise<boolean> {
    this.refused = null;
    return this.#turns.run(async () => {
      if (!this.view) return false;
      return this.#send({ ask: 'set', rules: { ...this.view.rules, ...change } });
    });
  }

  ask(payload: AlertsCommand): Promise<boolean> {
    if (payload.ask !== 'look' || !this.view) this.refused = null;
    return this.#turns.run(() => this.#send(payload));
  }

  async #send(payload: AlertsCommand): Promise<boolean> {
    try {
      const reply = await this.#backend.call({ cmd: 'alerts', payload });
      this.view = expectReply(reply, 'alerts').payload;
      return true;
    } catch (thrown) {
      // What was refused matters more than that a later look failed.
      if (payload.ask !== 'look' || !this.view) this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
