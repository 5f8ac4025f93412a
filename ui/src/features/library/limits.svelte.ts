// How downloads use the line and the library uses the drive: what the snapshots tell, and what was
// changed since the last of them.

import { asErrorBody, type Backend } from '../../lib/api/backend';
import type { ErrorBody, LibrarySettings } from '../../lib/api/types';
import { InTurn } from '../../lib/in-turn';
import { UnderWay } from '../../lib/under-way';

export class Limits {
  settings = $state.raw<LibrarySettings | null>(null);
  /** Why the last change was not taken; without a code where the window itself refused it. */
  refused = $state.raw<(Pick<ErrorBody, 'message' | 'hint'> & Partial<ErrorBody>) | null>(null);
  readonly #backend: Backend;
  readonly #turns = new InTurn();
  readonly #underWay = new UnderWay<LibrarySettings>(same);

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Takes in what a snapshot says. */
  told(settings: LibrarySettings): void {
    this.settings = this.#underWay.now(settings);
  }

  /** Saves a change; false where it was refused and everything stays as it was. */
  set(change: Partial<LibrarySettings>): Promise<boolean> {
    this.refused = null;
    return this.#turns.run(async () => {
      if (!this.settings) return false;
      const settings = { ...this.settings, ...change };
      try {
        await this.#backend.call({ cmd: 'library', payload: { action: 'set', settings } });
      } catch (thrown) {
        this.refused = asErrorBody(thrown);
        return false;
      }
      this.#underWay.took(settings);
      this.settings = settings;
      return true;
    });
  }
}

function same(one: LibrarySettings, other: LibrarySettings): boolean {
  return (
    one.cap_bytes === other.cap_bytes &&
    one.bytes_per_s_max === other.bytes_per_s_max &&
    one.connections === other.connections &&
    one.window?.from_minute === other.window?.from_minute &&
    one.window?.until_minute === other.window?.until_minute
  );
}
