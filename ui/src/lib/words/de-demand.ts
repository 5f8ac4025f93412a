// The German words about what the network wants and what a model brings; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const demand: Catalogue['demand'] = {
  levels: { high: 'Sehr gefragt', some: 'Gefragt', none: 'Gerade kaum gefragt' },
  waiting: (jobs, shown) => (jobs === 1 ? '1 Job wartet' : `${shown} Jobs warten`),
  jobs: (jobs, shown, minutes) =>
    `${jobs === 1 ? '1 Job' : `${shown} Jobs`} in ${minutes < 60 ? `den letzten ${Math.max(minutes, 1)} min` : 'der letzten Stunde'}`,
  nodes: (nodes, shown) => {
    if (nodes === 0) return 'kein Rechner bietet es an';
    return nodes === 1 ? '1 Rechner bietet es an' : `${shown} Rechner bieten es an`;
  },
  points: {
    text: (amount) => `${amount} Llama-Punkte`,
    image: (amount) => `${amount} Waifu-Punkte`,
  },
  perHour: (points) => `Etwa ${points} je Stunde`,
  perHourOfWork: (points) => `Etwa ${points} je Arbeitsstunde`,
  own: (jobs) => `aus deinen letzten ${jobs} Jobs damit`,
  network: 'so viel bekamen Rechner damit im Schnitt',
};
