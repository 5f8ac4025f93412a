// Which payment was for what: receipts and results arrive in either order, and name no request.

import type { MicroPoints, Receipt } from '../../lib/api/types';

/** A receipt and a result this far apart belong to different jobs. */
const MATCH_MS = 30_000;
const UNMATCHED_KEPT = 10;

/** Payments of this machine that no result has claimed yet. */
export class Payments {
  /** This machine's address: only its receipts count as earned here. */
  identity = '';
  #unmatched: { receipt: Receipt; atMs: number }[] = [];

  /** Takes in a receipt; says whether it is this machine's. */
  add(receipt: Receipt, atMs: number): boolean {
    // An address may be written with a checksum in its capitals; a node id is in lower case.
    const identity = this.identity.toLowerCase();
    if (identity !== '' && !receipt.node.toLowerCase().startsWith(identity)) return false;
    this.#unmatched.push({ receipt, atMs });
    if (this.#unmatched.length > UNMATCHED_KEPT) this.#unmatched.shift();
    return true;
  }

  /** What the first fitting receipt of about that time paid. Each receipt counts once. */
  claim(doneAtMs: number, fits: (receipt: Receipt) => boolean): MicroPoints | null {
    const index = this.#unmatched.findIndex(
      ({ receipt, atMs }) => Math.abs(atMs - doneAtMs) <= MATCH_MS && fits(receipt),
    );
    const [found] = index >= 0 ? this.#unmatched.splice(index, 1) : [];
    return found ? found.receipt.quote.amount_micro : null;
  }
}
