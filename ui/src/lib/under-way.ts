// A value that the program took and that its snapshots show a moment later.

/** How long a change may be on its way into the snapshots before they are believed again. */
const UNDER_WAY_MS = 4000;

export class UnderWay<T> {
  readonly #same: (one: T, other: T) => boolean;
  #taken: { value: T; until: number } | null = null;

  constructor(same: (one: T, other: T) => boolean) {
    this.#same = same;
  }

  /** The program took this. */
  took(value: T): void {
    this.#taken = { value, until: Date.now() + UNDER_WAY_MS };
  }

  /** What counts where a snapshot says `told`, which may have been put together before the change. */
  now(told: T): T {
    const taken = this.#taken;
    if (taken && Date.now() < taken.until && !this.#same(taken.value, told)) return taken.value;
    this.#taken = null;
    return told;
  }
}
