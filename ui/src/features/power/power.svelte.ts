// Power: the limits of cards, the search for the best one, and sleep, as the program has them.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, PowerCommand, PowerView } from '../../lib/api/types';

/** How often the page looks while it is open. */
const LOOK_MS = 1000;

export class Power {
  view = $state.raw<PowerView | null>(null);
  /** Why the last change was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Looks now and every second, until the returned function is called. */
  watch(): () => void {
    void this.ask({ ask: 'look' });
    const timer = setInterval(() => {
      if (!document.hidden) void this.ask({ ask: 'look' });
    }, LOOK_MS);
    return () => clearInterval(timer);
  }

  /** Asks for something; false where it was refused and everything stays as it was. */
  async ask(payload: PowerCommand): Promise<boolean> {
    if (payload.ask !== 'look') this.refused = null;
    try {
      const reply = await this.#backend.call({ cmd: 'power', payload });
      this.view = expectReply(reply, 'power').payload;
      return true;
    } catch (thrown) {
      if (payload.ask !== 'look' || !this.view) this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
