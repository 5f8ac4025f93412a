// Newer versions of the program, as the program has them.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, UpdateCommand, UpdatePreferences, UpdateView } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Update {
  view = $state.raw<UpdateView | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #turns = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<UpdatePreferences>): Promise<boolean> {
    this.refused = null;
    return this.#turns.run(async () => {
      if (!this.view) return false;
      return this.#send({ ask: 'set', preferences: { ...this.view.preferences, ...change } });
    });
  }

  ask(payload: UpdateCommand): Promise<boolean> {
    if (payload.ask !== 'look' || !this.view) this.refused = null;
    return this.#turns.run(() => this.#send(payload));
  }

  async #send(payload: UpdateCommand): Promise<boolean> {
    try {
      const reply = await this.#backend.call({ cmd: 'update', payload });
      this.view = expectReply(reply, 'update').payload;
      return true;
    } catch (thrown) {
      // What was refused matters more than that a later look failed.
      if (payload.ask !== 'look' || !this.view) this.refused = asErrorBody(thrown);
      return false;
    }
  }
}

/** What is new, in the language shown, else in English. */
export function notesIn(notes: Record<string, string | undefined>, language: string): string {
  return notes[language] ?? notes['en'] ?? '';
}
