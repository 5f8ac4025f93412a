// What a receipt's formula divides by. Whether a receipt is right is computed by the program alone.

import type { PointsKind } from '../../lib/api/types';

/** Units of work that one point pays, before factors: tokens, or pixels times steps. */
export const UNITS_PER_POINT: Record<PointsKind, number> = {
  llama: 1000,
  waifu: 512 * 512 * 20,
};
