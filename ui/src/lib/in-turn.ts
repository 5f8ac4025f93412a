// Changes that are made one after the other, so that each is of what the one before left.

export class InTurn {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` once all that was asked for earlier has ended, well or not. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work, work);
    this.#last = done;
    return done;
  }
}
