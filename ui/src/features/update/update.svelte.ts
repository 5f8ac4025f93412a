// Newer versions of the program, as the program has them.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type { ErrorBody, UpdateCommand, UpdatePreferences, UpdateView } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';

export class Update {
  view = $state.raw<UpdateView | null>(null);
  /** Why the last request was not taken. */
  refused = $state.raw<ErrorBody | null>(null);
  readonly #backend: Backend;
  readonly #changes = new InTurn();

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  set(change: Partial<UpdatePreferences>): Promise<boolean> {
    return this.#changes.run(async () => {
      if (!this.view) return false;
      return this.ask({ ask: 'set', preferences: { ...this.view.preferences, ...change } });
    });
  }

  async ask(payload: UpdateCommand): Promise<boolean> {
    if (payload.ask !== 'look') this.refused = null;
    try {
      const reply = await this.#backend.call({ cmd: 'update', payload });
      this.view = expectReply(reply, 'update').payload;
      return true;
    } catch (thrown) {
      this.refused = asErrorBody(thrown);
      return false;
    }
  }
}

/** What is new, in the language shown, else in English. */
export function notesIn(notes: Record<string, string | undefined>, language: string): string {
  return notes[language] ?? notes['en'] ?? '';
}
