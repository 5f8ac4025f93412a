// The operator's content filter, as the program has it.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, FilterCommand, FilterView } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Filter {
  view = $state.raw<FilterView | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #changes = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  set(change: Partial<FilterView>): Promise<boolean> {
    return this.#changes.run(async () => {
      if (!this.view) return false;
      return this.ask({ ask: 'set', filter: { ...this.view, ...change } });
    });
  }

  async ask(payload: FilterCommand): Promise<boolean> {
    this.refused = null;
    try {
      const reply = await this.#backend.call({ cmd: 'filter', payload });
      this.view = expectReply(reply, 'filter').payload;
      return true;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
