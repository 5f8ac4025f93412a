// The whole window over the fake backend, as tests need it.

import { render } from '@testing-library/svelte';
import { flushSync } from 'svelte';

import Root from '../../src/Root.svelte';
import type { Event, Snapshot } from '../../src/lib/api/types';
import { Session } from '../../src/features/session/session.svelte';
import type { Page } from '../../src/views/pages';
import { FakeBackend } from '../fake/backend';

export async function open(snapshot: Snapshot, first: Page = 'home') {
  const backend = new FakeBackend(snapshot);
  const session = new Session(backend);
  const view = render(Root, { session, first });
  await session.connect();
  flushSync();
  const emit = (event: Event) => {
    backend.emit(event);
    flushSync();
  };
  return { backend, session, emit, ...view };
}

/** Lets promises of handlers run and the page follow. */
export async function settle(): Promise<void> {
  await new Promise((done) => setTimeout(done, 0));
  flushSync();
}
