// What the network wants of a model and what it brings, in words.

import type { JobKind, ModelDemand, PointsEstimate } from '../../lib/api/types';
import { count, points } from '../../lib/format';
import { t } from '../../lib/strings';

/** Fewer minutes say nothing about how much a model is wanted. */
const MINUTES_MIN = 10;

/**
 * How much it is wanted: more jobs wait than machines serve it, there are jobs, or there are none;
 * null where too little was seen to say that.
 */
export function wanted(demand: ModelDemand): 'high' | 'some' | 'none' | null {
  if (demand.waiting > demand.nodes) return 'high';
  if (demand.waiting > 0 || demand.jobs > 0) return 'some';
  return demand.minutes < MINUTES_MIN ? null : 'none';
}

/** Demand and its numbers, as one line. */
export function demandWords(demand: ModelDemand): string {
  const level = wanted(demand);
  const words: string[] = level === null ? [] : [t.demand.levels[level]];
  if (demand.waiting > 0) words.push(t.demand.waiting(demand.waiting, count(demand.waiting)));
  if (demand.jobs > 0) {
    words.push(t.demand.jobs(demand.jobs, count(demand.jobs), demand.minutes));
  }
  words.push(t.demand.nodes(demand.nodes, count(demand.nodes)));
  return words.join(' · ');
}

/** An amount that is known roughly: three digits of it. */
export function rough(micro: number): string {
  const size = Math.abs(micro) / 1_000_000;
  const decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 3 : 6;
  return points(micro, 0, decimals);
}

/** Points an hour, and where that comes from. */
export function estimateWords(estimate: PointsEstimate, kind: JobKind): [string, string] {
  const { method } = estimate;
  const named = t.demand.points[kind](rough(estimate.points_per_hour_micro));
  return method.by === 'own'
    ? [t.demand.perHourOfWork(named), t.demand.own(method.jobs)]
    : [t.demand.perHour(named), t.demand.network];
}
