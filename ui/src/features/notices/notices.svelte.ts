// What the desktop's notifications tell, as the program has it.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, NoticesCommand, NoticeSettings } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Notices {
  settings = $state.raw<NoticeSettings | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #turns = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<NoticeSettings>): Promise<boolean> {
    this.refused = null;
    return this.#turns.run(async () => {
      if (!this.settings) return false;
      return this.#send({ ask: 'set', settings: { ...this.settings, ...change } });
    });
  }

  ask(payload: NoticesCommand): Promise<boolean> {
    if (payload.ask !== 'look' || !this.settings) this.refused = null;
    return this.#turns.run(() => this.#send(payload));
  }

  async #send(payload: NoticesCommand): Promise<boolean> {
    try {
      const reply = await this.#backend.call({ cmd: 'notices', payload });
      this.settings = expectReply(reply, 'notices').payload;
      return true;
    } catch (thrown) {
      // What was refused matters more than that a later look failed.
      if (payload.ask !== 'look' || !this.settings) this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
