// Rows that the program tells twice, and a part of the window that fails: the rest goes on.

import { fireEvent, screen } from '@testing-library/svelte';
import { afterEach, describe, expect, it, vi } from 'vitest';

import type { EarningsAsk, Reply } from '../../src/lib/api/types';
import { hot } from '../fake/alerts';
import { answer } from '../fake/ledger';
import { library, models, noPoints, receipt, snapshot } from '../fake/samples';
import { found, guideView, richWallet } from '../fake/wallet';
import { open, settle } from './render';

afterEach(() => {
  vi.restoreAllMocks();
  localStorage.clear();
});

describe('what is told twice', () => {
  it('are nodes of one provider and an alert that was taken up again', async () => {
    const { backend, session } = await open(snapshot('stopped'));
    const rich = richWallet();
    if (!rich.chain) throw new Error('a chain');
    const node = { chain: 'Base', host: 'rpc.example' };
    rich.chain.nodes = [node, { ...node, chain: 'zkSync Era' }];
    backend.wallet = rich;
    session.wallet.view = rich;
    const past = { ...hot, until_ms: hot.since_ms + 60_000 };
    backend.alerts = { ...backend.alerts, past: [past, { ...past, until_ms: past.since_ms }] };
    await fireEvent.click(screen.getByTestId('nav-settings'));
    await settle();
    await settle();
    expect(screen.queryByTestId('page-failed')).toBeNull();
    expect(document.body.textContent?.split('rpc.example')).toHaveLength(3);
    expect(screen.getByTestId('alerts').textContent?.split('limit its power')).toHaveLength(3);
  });

  it('are ids and keys of an earlier miner', async () => {
    const { backend, session } = await open(snapshot('stopped', noPoints));
    backend.guide = guideView({ open: true, step: 'reward' });
    await session.wallet.connect();
    await settle();
    const call = backend.call.bind(backend);
    const twice = <Row>(rows: Row[]) => [...rows, ...rows];
    backend.call = (command): Promise<Reply> => {
      if (command.cmd !== 'wallet' || command.payload.ask !== 'miner_look') return call(command);
      const answer = {
        ...found,
        miner_ids: twice(found.miner_ids),
        keys: twice(found.keys),
        problems: twice(found.problems),
      };
      return Promise.resolve({ reply: 'wallet', payload: { answer: 'found', with: answer } });
    };
    await fireEvent.click(screen.getByTestId('guide-miner'));
    await settle();
    const field = screen.getByTestId<HTMLInputElement>('miner-folder');
    field.value = '/home/ada/miner-release';
    await fireEvent.input(field);
    await fireEvent.submit(field);
    await settle();
    const shown = screen.getByTestId('miner-found').textContent ?? '';
    expect(shown.split(found.miner_ids[0] ?? '?')).toHaveLength(3);
  });

  it('are two cards of one name', async () => {
    const twin = (fits: (typeof library.models)[0]['fits']) => [...fits, ...fits];
    const told = library.models.map((one) => ({ ...one, fits: twin(one.fits) }));
    const { backend, session } = await open(
      snapshot('stopped', { ...noPoints, library: { ...library, models: told } }),
    );
    backend.guide = guideView({ open: true, step: 'models' });
    await session.wallet.connect();
    await settle();
    expect(screen.queryByTestId('page-failed')).toBeNull();
    const first = screen.getAllByTestId('first-model')[0];
    expect(first?.querySelectorAll('[data-testid="model-fit"]').length).toBeGreaterThan(1);
  });
});

describe('older rows', () => {
  it('come once on Home, however often they are asked for', async () => {
    const receipts = Array.from({ length: 20 }, (_, index) => receipt(index));
    const { backend } = await open(snapshot('waiting', { receipts }));
    const button = screen.getByText<HTMLButtonElement>('Show older');
    await Promise.all([fireEvent.click(button), fireEvent.click(button)]);
    await settle();
    expect(backend.sent('receipts')).toHaveLength(1);
    expect(screen.getAllByTestId('receipt-row')).toHaveLength(23);
  });

  it('come once in Earnings, stay under what is new, and go with another search', async () => {
    const { backend, session } = await open(snapshot('working', noPoints));
    await fireEvent.click(screen.getByTestId('nav-earnings'));
    session.ledger.show('receipts');
    await settle();
    await settle();
    const rows = () => session.ledger.receipts.map((one) => one.event);
    expect(rows()).toHaveLength(50);
    await Promise.all([session.ledger.olderReceipts(), session.ledger.olderReceipts()]);
    expect(rows()).toHaveLength(100);
    const deep = session.ledger.receiptPage?.next;
    // A new one comes: on top, with the older ones below and the same way further down.
    const call = backend.call.bind(backend);
    const fresh = receipt(5_000_000);
    let held: (() => void) | null = null;
    backend.call = async (command) => {
      const reply = await call(command);
      const about: EarningsAsk | null = command.cmd === 'earnings' ? command.payload.about : null;
      if (about?.ask !== 'receipts') return reply;
      if (about.before !== null) await new Promise<void>((go) => (held = go));
      const told = answer(about, backend.overview);
      if (told.answer !== 'receipts') return reply;
      if (about.before === null && about.filter.text === '') {
        told.payload.receipts = [fresh, ...told.payload.receipts.slice(0, -1)];
      }
      return { reply: 'earnings', payload: told };
    };
    await session.ledger.refresh();
    expect(rows()[0]).toBe(fresh.event);
    expect(rows()).toHaveLength(101);
    expect(new Set(rows()).size).toBe(101);
    expect(session.ledger.receiptPage?.next).toBe(deep);
    // An answer for a search that is no longer shown is dropped.
    const late = session.ledger.olderReceipts();
    await settle();
    session.ledger.filterReceipts({ text: 'nobody', kind: null });
    await session.ledger.refresh();
    expect(rows()).toEqual([]);
    (held as (() => void) | null)?.();
    await late;
    expect(rows()).toEqual([]);
  });
});

describe('a page that fails', () => {
  it('says so, leaves the others alone, and is loaded again', async () => {
    vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const one = models[0];
    if (!one) throw new Error('a model');
    const { emit } = await open(snapshot('stopped'), 'models');
    emit({ event: 'snapshot', payload: snapshot('stopped', { models: [one, one] }) });
    expect(screen.getByTestId('page-failed').textContent).toContain('could not be shown');
    await fireEvent.click(screen.getByTestId('page-again'));
    expect(screen.getByTestId('page-failed')).toBeTruthy();
    await fireEvent.click(screen.getByTestId('nav-home'));
    expect(screen.queryByTestId('page-failed')).toBeNull();
    await fireEvent.click(screen.getByTestId('nav-models'));
    expect(screen.getByTestId('page-failed')).toBeTruthy();
    emit({ event: 'snapshot', payload: snapshot('stopped', { models: [one] }) });
    await fireEvent.click(screen.getByTestId('page-again'));
    expect(screen.queryByTestId('page-failed')).toBeNull();
    expect(screen.getAllByTestId('model-row')).toHaveLength(1);
  });
});
