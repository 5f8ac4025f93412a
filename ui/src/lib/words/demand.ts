// The words about what the network wants and what a model brings; part of the catalogue in
// strings.ts.

import type { JobKind } from '../api/types';

const points: Record<JobKind, (amount: string) => string> = {
  text: (amount) => `${amount} Llama points`,
  image: (amount) => `${amount} Waifu points`,
};

export const demand = {
  levels: { high: 'Much wanted', some: 'Wanted', none: 'Hardly wanted now' },
  waiting: (jobs: number, shown: string) => (jobs === 1 ? '1 job waits' : `${shown} jobs wait`),
  /** `minutes` is 60, or fewer where the network's server started lately. */
  jobs: (jobs: number, shown: string, minutes: number) =>
    `${jobs === 1 ? '1 job' : `${shown} jobs`} in the last ${minutes < 60 ? `${Math.max(minutes, 1)} min` : 'hour'}`,
  nodes: (nodes: number, shown: string) => {
    if (nodes === 0) return 'no machine serves it';
    return nodes === 1 ? '1 machine serves it' : `${shown} machines serve it`;
  },
  points,
  perHour: (points: string) => `About ${points} an hour`,
  perHourOfWork: (points: string) => `About ${points} an hour of work`,
  own: (jobs: number) => `from your last ${jobs} jobs with it`,
  network: 'what machines with it got on average',
};
