// What the person is told without asking: the rules, and what was told, as the program has them.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { AlertRules, AlertsCommand, AlertsView, ErrorBody } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Alerts {
  view = $state.raw<AlertsView | null>(null);
  /** Why the last change was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #changes = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<AlertRules>): Promise<boolean> {
    return this.#changes.run(async () => {
      if (!this.view) return false;
      return this.ask({ ask: 'set', rules: { ...this.view.rules, ...change } });
    });
  }

  async ask(payload: AlertsCommand): Promise<boolean> {
    this.refused = null;
    try {
      const reply = await this.#backend.call({ cmd: 'alerts', payload });
      this.view = expectReply(reply, 'alerts').payload;
      return true;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
