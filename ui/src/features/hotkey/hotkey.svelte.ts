// The key that pauses and resumes, as the program has it.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, HotkeyCommand, HotkeyView } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Hotkey {
  view = $state.raw<HotkeyView | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #turns = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Takes these keys, or none; false where that was refused and everything stays as it was. */
  set(keys: string | null): Promise<boolean> {
    return this.ask({ ask: 'set', keys });
  }

  ask(payload: HotkeyCommand): Promise<boolean> {
    if (payload.ask !== 'look' || !this.view) this.refused = null;
    return this.#turns.run(async () => {
      try {
        const reply = await this.#backend.call({ cmd: 'hotkey', payload });
        this.view = expectReply(reply, 'hotkey').payload;
        return true;
      } catch (thrown) {
        // What was refused matters more than that a later look failed.
        if (payload.ask !== 'look' || !this.view) this.refused = asErrorBody(thrown);
        return false;
      }
    });
  }
}
