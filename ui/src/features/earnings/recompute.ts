// A receipt's amount computed again, by the rule it names: (tokens in + out) / 1000 x factor x
// multiplier, rounded down once.

import type { Receipt } from '../../lib/api/types';

const MICRO_PER_TOKEN = 1000n;
const MILLIONTHS_SQUARED = 1_000_000_000_000n;

/** The amount in micro-points that the receipt's own figures give. */
export function recompute(receipt: Receipt): number {
  const { usage, quote } = receipt;
  const tokens = BigInt(usage.prompt_tokens) + BigInt(usage.completion_tokens);
  const product = tokens * MICRO_PER_TOKEN * BigInt(quote.factor) * BigInt(quote.multiplier);
  return Number(product / MILLIONTHS_SQUARED);
}

/** Whether the paid amount is what its own figures give. */
export function addsUp(receipt: Receipt): boolean {
  return recompute(receipt) === receipt.quote.amount_micro;
}
