// What the big button offers in each state.

import type { CurrentJob, MiningState, ModelStatus, StopMode } from '../../lib/api/types';
import { share } from '../../lib/format';
import type { Pending } from '../session/session.svelte';

/** What the button does, and what a second, smaller one offers beside it. */
export interface Controls {
  action: 'start' | StopMode;
  /** Whether "Stop now" stands beside "Stop". */
  stopNow: boolean;
  /** The request is on its way; the button waits. */
  busy: boolean;
}

export function controls(state: MiningState, pending: Pending | null, snoozed = false): Controls {
  const busy = pending !== null;
  switch (state) {
    case 'stopped':
    case 'needs_you':
      return { action: 'start', stopNow: false, busy };
    case 'starting':
      return { action: 'now', stopNow: false, busy };
    case 'paused':
      // A pause of the person's own ends with the button; a rule's ends beside its sentence.
      return { action: snoozed ? 'start' : 'now', stopNow: false, busy };
    case 'waiting':
      return { action: 'finish', stopNow: false, busy };
    case 'working':
      return { action: 'finish', stopNow: true, busy };
    case 'finishing':
      return { action: 'now', stopNow: false, busy };
  }
}

/**
 * How full the ring around the button is, 0 to 1: the model's arrival while starting, the answer's
 * length while working. `null` where there is nothing to measure.
 */
export function ring(
  state: MiningState,
  job: CurrentJob | null,
  models: readonly ModelStatus[],
): number | null {
  if (state === 'starting') {
    const fetching = models.map((model) => model.state).find((s) => s.state === 'fetching');
    return fetching ? share(fetching.done_bytes, fetching.total_bytes) : null;
  }
  if (state === 'working' || state === 'finishing') {
    return job ? share(job.done, job.of) : null;
  }
  return state === 'waiting' || state === 'paused' ? 1 : 0;
}
