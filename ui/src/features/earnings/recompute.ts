// A receipt's amount computed again, by the rule it names: units x factor x multiplier over the units
// of one point, rounded down once. Units are tokens in + out, or a picture's pixels times steps.

import type { PointsKind, Receipt } from '../../lib/api/types';

const MICRO_PER_POINT = 1_000_000n;
const MILLIONTHS_SQUARED = 1_000_000_000_000n;

/** Units of work that one point pays, before factors. */
export const UNITS_PER_POINT: Record<PointsKind, number> = {
  llama: 1000,
  waifu: 512 * 512 * 20,
};

/** The amount in micro-points that the receipt's own figures give. */
export function recompute(receipt: Receipt): number {
  const { usage, quote } = receipt;
  const tokens = BigInt(usage.prompt_tokens) + BigInt(usage.completion_tokens);
  const units = quote.points === 'llama' ? tokens : BigInt(quote.units);
  const product = units * MICRO_PER_POINT * BigInt(quote.factor) * BigInt(quote.multiplier);
  return Number(product / (BigInt(UNITS_PER_POINT[quote.points]) * MILLIONTHS_SQUARED));
}

/** Whether the paid amount is what its own figures give. */
export function addsUp(receipt: Receipt): boolean {
  return recompute(receipt) === receipt.quote.amount_micro;
}
