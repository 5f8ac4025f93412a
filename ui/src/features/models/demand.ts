// What the network wants of a model and what it brings, in words and in an order.

import type { LibraryModel, ModelDemand, ModelId, ModelStatus } from '../../lib/api/types';
import { t } from '../../lib/strings';

/** How much it is wanted: more jobs wait than machines serve it, there are jobs, or there are none. */
export function wanted(demand: ModelDemand): 'high' | 'some' | 'none' {
  if (demand.waiting > demand.nodes) return 'high';
  return demand.jobs > 0 || demand.waiting > 0 ? 'some' : 'none';
}

/** Demand and its numbers, as one line. */
export function demandWords(demand: ModelDemand): string {
  const words: string[] = [t.demand[wanted(demand)]];
  if (demand.waiting > 0) words.push(t.demand.waiting(demand.waiting));
  if (demand.jobs > 0) words.push(t.demand.jobs(demand.jobs));
  words.push(t.demand.nodes(demand.nodes));
  return words.join(' · ');
}

/** Models in the order of what they bring; those of which nothing is known stay as they were. */
export function byWorth(models: readonly ModelStatus[], facts: readonly LibraryModel[]) {
  const worth = new Map(facts.map((f) => [f.model, f.estimate?.points_per_hour_micro ?? -1]));
  return [...models].sort((a, b) => (worth.get(b.id) ?? -1) - (worth.get(a.id) ?? -1));
}

/** The model that brings most, where more than one can be compared. */
export function best(facts: readonly LibraryModel[]): ModelId | null {
  const known = facts.filter((f) => (f.estimate?.points_per_hour_micro ?? 0) > 0);
  if (known.length < 2) return null;
  const worth = (f: LibraryModel) => f.estimate?.points_per_hour_micro ?? 0;
  return known.reduce((a, b) => (worth(b) > worth(a) ? b : a)).model;
}
