// The words about what the network wants and what a model brings; part of the catalogue in
// strings.ts.

export const demand = {
  high: 'Much wanted',
  some: 'Wanted',
  none: 'Hardly wanted now',
  waiting: (jobs: number) => (jobs === 1 ? '1 job waits' : `${jobs} jobs wait`),
  jobs: (jobs: number) => (jobs === 1 ? '1 job in the last hour' : `${jobs} jobs in the last hour`),
  nodes: (nodes: number) => (nodes === 1 ? '1 machine serves it' : `${nodes} machines serve it`),
  perHour: (points: string) => `about ${points} points an hour`,
  own: (jobs: number) => `from your last ${jobs} jobs with it`,
  network: 'what machines with it got in the last hour',
  best: 'Best choice for this machine',
};
