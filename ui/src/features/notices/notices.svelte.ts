// What the desktop's notifications tell, as the program has it.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, NoticesCommand, NoticeSettings } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Notices {
  settings = $state.raw<NoticeSettings | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #changes = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  set(change: Partial<NoticeSettings>): Promise<boolean> {
    return this.#changes.run(async () => {
      if (!this.settings) return false;
      return this.ask({ ask: 'set', settings: { ...this.settings, ...change } });
    });
  }

  async ask(payload: NoticesCommand): Promise<boolean> {
    this.refused = null;
    try {
      const reply = await this.#backend.call({ cmd: 'notices', payload });
      this.settings = expectReply(reply, 'notices').payload;
      return true;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
      return false;
    }
  }
}
