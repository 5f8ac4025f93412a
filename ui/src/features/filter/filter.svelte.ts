// The operator's content filter, as the program has it.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, FilterCommand, FilterView } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Filter {
  view = $state.raw<FilterView | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #turns = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<FilterView>): Promise<boolean> {
    this.refused = null;
    return this.#turns.run(async () => {
      if (!this.view) return false;
      return this.#send({ ask: 'set', filter: { ...this.view, ...change } });
    });
  }

  ask(payload: FilterCommand): Promise<boolean> {
    if (payload.ask !== 'look' || !this.view) this.refused = null;
    return this.#turns.run(() => this.#send(payload));
  }

  async #send(payload: FilterCommand): Promise<boolean> {
    try {
      const reply = await this.#backend.call({ cmd: 'filter', payload });
      this.view = expectReply(reply, 'filter').payload;
      return true;
    } catch (thrown) {
      // What was refused matters more than that a later look failed.
      if (payload.ask !== 'look' || !this.view) this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
