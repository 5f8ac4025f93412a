// The German words about what the network wants and what a model brings; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const demand: Catalogue['demand'] = {
  high: 'Sehr gefragt',
  some: 'Gefragt',
  none: 'Gerade kaum gefragt',
  waiting: (jobs: number) => (jobs === 1 ? '1 Job wartet' : `${jobs} Jobs warten`),
  jobs: (jobs: number) =>
    jobs === 1 ? '1 Job in der letzten Stunde' : `${jobs} Jobs in der letzten Stunde`,
  nodes: (nodes: number) =>
    nodes === 1 ? '1 Rechner hat es im Angebot' : `${nodes} Rechner haben es im Angebot`,
  perHour: (points: string) => `etwa ${points} Punkte je Stunde`,
  own: (jobs: number) => `aus deinen letzten ${jobs} Jobs damit`,
  network: 'was Rechner damit in der letzten Stunde bekamen',
  best: 'Beste Wahl für diesen Rechner',
};
