import { fireEvent, screen } from '@testing-library/svelte';
import axe from 'axe-core';
import { afterEach, describe, expect, it, vi } from 'vitest';

import type { OnboardingStep } from '../../src/lib/api/types';
import { order } from '../../src/features/guide/steps';
import { FORMER, guideView, REWARD, richWallet, walletView, WORDS } from '../fake/wallet';
import { noPoints, receipt, snapshot } from '../fake/samples';
import { open, settle } from './render';

afterEach(() => localStorage.clear());

const field = (id: string) => screen.getByTestId<HTMLInputElement>(id);

async function settings(wallet = walletView()) {
  const opened = await open(snapshot('stopped'));
  opened.backend.wallet = wallet;
  opened.session.wallet.view = wallet;
  await fireEvent.click(screen.getByTestId('nav-settings'));
  return opened;
}

async function guided(step: OnboardingStep, changes = {}) {
  const opened = await open(snapshot('stopped', noPoints));
  opened.backend.guide = guideView({ open: true, step, ...changes });
  await opened.session.wallet.connect();
  await settle();
  return opened;
}

async function enter(id: string, value: string, inputType = 'insertText') {
  field(id).value = value;
  await fireEvent(field(id), new InputEvent('input', { inputType, bubbles: true }));
}

describe('what goes wrong is said', () => {
  it('when the words cannot be shown or asked for', async () => {
    const { backend } = await settings();
    await fireEvent.click(screen.getByTestId('backup-open'));
    backend.refusals.set('wallet', { code: 'internal', message: 'the key store is locked' });
    await fireEvent.pointerDown(screen.getByTestId('words-hold'));
    await settle();
    expect(screen.getByTestId('wallet-identity').textContent).toContain('key store is locked');
    expect(screen.getByTestId<HTMLButtonElement>('words-written').disabled).toBe(true);
  });

  it('when the guide cannot be left', async () => {
    const { backend } = await guided('reward');
    backend.refusals.set('onboarding', { code: 'internal', message: 'the drive is full' });
    await fireEvent.click(screen.getByTestId('guide-leave'));
    await settle();
    expect(screen.getByTestId('guide').textContent).toContain('The drive is full');
  });
});

describe('the reward address', () => {
  it('is removed after a question alone', async () => {
    const { backend } = await settings(richWallet());
    const sent = () =>
      backend.sent('wallet').filter((one) => one.payload.ask === 'reward_remove').length;
    await fireEvent.click(screen.getByTestId('reward-remove'));
    expect(sent()).toBe(0);
    await fireEvent.click(screen.getByText('Keep it'));
    expect(screen.queryByTestId('reward-remove-dialog')).toBeNull();
    await fireEvent.click(screen.getByTestId('reward-remove'));
    await fireEvent.click(screen.getByTestId('reward-remove-go'));
    await settle();
    expect(sent()).toBe(1);
    expect(screen.queryByTestId('reward-remove-dialog')).toBeNull();
  });
});

describe('the recovery words', () => {
  it('are shown only while the button is held', async () => {
    const { backend, session } = await settings();
    await fireEvent.click(screen.getByTestId('backup-open'));
    expect(document.body.textContent).not.toContain('sausage');
    expect(backend.sent('wallet').filter((one) => one.payload.ask === 'reveal')).toHaveLength(0);
    for (const [press, release] of [
      ['pointerDown', 'pointerUp'],
      ['pointerDown', 'pointerLeave'],
      ['pointerDown', 'blur'],
    ] as const) {
      await fireEvent[press](screen.getByTestId('words-hold'));
      await settle();
      expect(screen.getByTestId('words').textContent).toContain('sausage');
      await fireEvent[release](screen.getByTestId('words-hold'));
      await settle();
      expect(document.body.textContent).not.toContain('sausage');
      expect(session.wallet.words).toBeNull();
    }
  });

  it('are shown for a while to who presses by a click alone, and read from the list', async () => {
    const { session } = await settings();
    await fireEvent.click(screen.getByTestId('backup-open'));
    vi.useFakeTimers();
    const toggle = screen.getByTestId('words-show');
    const press = async () => {
      await fireEvent.click(toggle);
      await vi.advanceTimersByTimeAsync(1);
    };
    await press();
    expect(screen.getByTestId('words').textContent).toContain('sausage');
    expect(document.activeElement).toBe(screen.getByTestId('words'));
    expect(screen.getByTestId<HTMLButtonElement>('words-written').disabled).toBe(false);
    // A pointer that only passes over the other button takes nothing away.
    await fireEvent.pointerLeave(screen.getByTestId('words-hold'));
    expect(session.wallet.words).not.toBeNull();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(session.wallet.words).toBeNull();
    expect(document.activeElement).toBe(toggle);
    await press();
    await press();
    expect(session.wallet.words).toBeNull();
    await press();
    await fireEvent.blur(window);
    expect(session.wallet.words).toBeNull();
    vi.useRealTimers();
  });

  it('do not appear when the button was let go before they came', async () => {
    const { session } = await settings();
    await fireEvent.click(screen.getByTestId('backup-open'));
    const button = screen.getByTestId('words-hold');
    await Promise.all([
      fireEvent.keyDown(button, { key: ' ' }),
      fireEvent.keyUp(button, { key: ' ' }),
    ]);
    await settle();
    expect(session.wallet.words).toBeNull();
  });

  it('count as written down after three of them, in new places after a mistake', async () => {
    const { backend } = await settings();
    await fireEvent.click(screen.getByTestId('backup-open'));
    await fireEvent.pointerDown(screen.getByTestId('words-hold'));
    await settle();
    await fireEvent.click(screen.getByTestId('words-written'));
    await settle();
    for (const attempt of ['wrong', 'right']) {
      for (const [index, place] of [2, 5, 12].entries()) {
        const word = attempt === 'right' ? (WORDS[place - 1] ?? '') : 'zoo';
        await enter(`quiz-${index}`, word);
      }
      await fireEvent.submit(screen.getByTestId('quiz'));
      await settle();
      if (attempt === 'wrong') {
        expect(screen.getByTestId('refusal').textContent).toContain('another one');
        expect(field('quiz-0').value).toBe('');
      }
    }
    expect(screen.getByTestId('backup-state').dataset.done).toBe('true');
    expect(backend.sent('wallet').filter((one) => one.payload.ask === 'quiz')).toHaveLength(2);
  });
});

describe('the reward address', () => {
  it('is read, compared and saved', async () => {
    const { backend } = await settings();
    await enter('reward-input', 'ada.eth');
    await fireEvent.click(screen.getByTestId('reward-check'));
    await settle();
    expect(screen.getByTestId('refusal').textContent).toContain('0x');
    await enter('reward-input', REWARD.toLowerCase());
    await fireEvent.click(screen.getByTestId('reward-check'));
    await settle();
    expect(screen.getByTestId('reward-read').textContent).toBe(REWARD);
    expect(screen.getByText(/Compare every character/)).toBeTruthy();
    await fireEvent.click(screen.getByTestId('reward-use'));
    await settle();
    expect(screen.getByTestId('reward-address').textContent).toBe(REWARD);
    const set = backend.sent('wallet').find((one) => one.payload.ask === 'reward_set');
    expect(set?.payload).toMatchObject({ pasted: null, replaces: null });
  });

  it('is not saved when the field changed after a paste', async () => {
    await settings();
    const paste = new Event('paste', { bubbles: true });
    Object.assign(paste, { clipboardData: { getData: () => REWARD } });
    await fireEvent(field('reward-input'), paste);
    // Something sets the field, and nobody typed.
    await enter('reward-input', FORMER, 'insertReplacementText');
    await fireEvent.click(screen.getByTestId('reward-check'));
    await settle();
    expect(screen.getByTestId('reward-swapped')).toBeTruthy();
    expect(screen.getByTestId<HTMLButtonElement>('reward-use').disabled).toBe(true);
    // A person who types takes over.
    await enter('reward-input', REWARD);
    await fireEvent.click(screen.getByTestId('reward-check'));
    await settle();
    expect(screen.queryByTestId('reward-swapped')).toBeNull();
  });

  it('shows what chains say, and says what is not known', async () => {
    await settings(richWallet());
    expect(screen.getByTestId('fact-binding').textContent).toContain('Bound to this identity');
    expect(screen.getByTestId('fact-nfts').textContent).toContain('2 pieces');
    expect(screen.getByText('× 1.15')).toBeTruthy();
    expect(screen.getByTestId('fact-staked').textContent).toContain('2500.5 stHEU');
    expect(screen.getByText('Checked 5 min ago')).toBeTruthy();
  });

  it('leaves chains off without a node', async () => {
    await settings();
    expect(screen.getByTestId('fact-binding').dataset.fact).toBe('no_reward');
    expect(screen.queryByTestId('chain-check')).toBeNull();
  });
});

describe('the guide', () => {
  it('stands in front of the pages until it is over', async () => {
    const { backend } = await guided('reward');
    expect(screen.queryByTestId('nav-home')).toBeNull();
    for (const step of order) {
      expect(screen.getByTestId('guide').dataset.step).toBe(step);
      await fireEvent.click(screen.getByTestId('guide-next'));
      await settle();
    }
    expect(screen.queryByTestId('guide')).toBeNull();
    expect(screen.getByTestId('nav-home')).toBeTruthy();
    expect(backend.sent('onboarding').map((one) => one.payload.ask)).toContain('finish');
  });

  it('goes back, and can be left at once', async () => {
    await guided('models');
    await fireEvent.click(screen.getByTestId('guide-back'));
    await settle();
    expect(screen.getByTestId('guide').dataset.step).toBe('machine');
    await fireEvent.click(screen.getByTestId('guide-leave'));
    await settle();
    expect(screen.queryByTestId('guide')).toBeNull();
  });

  it('shows what the first receipt paid', async () => {
    const { emit } = await guided('first_job');
    expect(screen.queryByTestId('guide-earned')).toBeNull();
    emit({ event: 'snapshot', payload: snapshot('waiting', { receipts: [receipt(0)] }) });
    expect(screen.getByTestId('guide-earned').textContent?.trim()).toBe(
      'You earned 0.105 Llama points',
    );
  });

  it('offers to start with the computer only where that works', async () => {
    const { backend } = await guided('when');
    await fireEvent.click(screen.getByTestId('at-login'));
    await settle();
    expect(backend.guide.at_login).toBe(true);
    await fireEvent.click(screen.getByTestId('guide-leave'));
    await settle();
    await guided('when', { at_login: null });
    expect(screen.queryByTestId('at-login')).toBeNull();
    expect(screen.getByText(/cannot start with the computer/)).toBeTruthy();
  });

  it('says when to mine with the rules of the settings', async () => {
    const { backend } = await guided('when');
    await settle();
    expect(screen.queryByTestId('week-grid')).toBeNull();
    await fireEvent.click(screen.getByTestId('guide-when-away'));
    await settle();
    expect(backend.rules.rules.when).toBe('away');
    expect(
      screen.getByText('After 10 minutes without mouse and keyboard, until you come back.'),
    ).toBeTruthy();
    await fireEvent.click(screen.getByTestId('guide-when-schedule'));
    await settle();
    await fireEvent.click(screen.getByTestId('guide-week-nights'));
    await settle();
    expect(backend.rules.rules.when).toBe('schedule');
    expect(backend.rules.rules.week).toHaveLength(7);
    expect(backend.rules.rules.week[2]).toBe('cccccc................cc');
    expect(screen.getByTestId('week-grid')).toBeTruthy();
  });

  it('shows why the rules cannot be read or changed', async () => {
    const { backend } = await guided('when');
    await settle();
    backend.refusals.set('rules_set', { code: 'internal', message: 'the drive is full' });
    await fireEvent.click(screen.getByTestId('guide-when-away'));
    await settle();
    expect(screen.getByTestId('refusal').textContent).toContain('The drive is full');
    expect(backend.rules.rules.when).toBe('always');
  });

  it('moves the library and finds model files before the first download', async () => {
    const { backend } = await guided('models');
    for (const what of ['move', 'reuse'] as const) {
      await fireEvent.click(screen.getByTestId(`guide-${what}`));
      await settle();
      await enter('folder-input', '/media/games');
      await fireEvent.click(screen.getByTestId('folder-go'));
      await settle();
      expect(backend.sent('library').at(-1)?.payload).toEqual({
        action: what,
        folder: '/media/games',
      });
    }
  });

  it('takes over the models of a miner with its keys', async () => {
    const { backend } = await guided('reward');
    await fireEvent.click(screen.getByTestId('guide-miner'));
    await settle();
    await enter('miner-folder', '/home/ada/miner-release');
    await fireEvent.submit(screen.getByTestId('miner-folder'));
    await settle();
    await fireEvent.click(screen.getByTestId('miner-take-models'));
    await settle();
    expect(backend.sent('library').at(-1)?.payload).toEqual({
      action: 'reuse',
      folder: '/home/ada/.cache/heurist',
    });
  });

  it.each(order)('has no accessibility fault at %s', { timeout: 30_000 }, async (step) => {
    await guided(step);
    await settle();
    const rules = { 'color-contrast': { enabled: false } };
    const { violations } = await axe.run(document.body, { rules });
    expect(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join()}`)).toEqual([]);
  });
});

describe('a miner with another reward address', () => {
  async function found(reward: string | null) {
    const { backend, session } = await settings(richWallet());
    const view = session.wallet.view;
    if (!view) throw new Error('a wallet');
    const present = view.reward && reward !== null ? { ...view.reward, address: reward } : null;
    session.wallet.view = { ...view, reward: present };
    await settle();
    await fireEvent.click(screen.getByTestId('miner-open'));
    await settle();
    await enter('miner-folder', '/home/ada/miner-release');
    await fireEvent.submit(screen.getByTestId('miner-folder'));
    await settle();
    await fireEvent.click(screen.getByTestId('miner-take-key'));
    await settle();
    const taken = () => {
      const asked = backend.sent('wallet').map((one) => one.payload);
      return asked.filter((one) => one.ask === 'key_import').map((one) => one.take_reward);
    };
    return taken;
  }

  it('is asked about before points go there', async () => {
    const taken = await found(FORMER);
    expect(taken()).toEqual([]);
    expect(screen.getByTestId('miner-ask').textContent).toContain('Another reward address');
    await fireEvent.click(screen.getByTestId('miner-keep-reward'));
    await settle();
    expect(taken()).toEqual([false]);
    expect(screen.queryByTestId('miner-ask')).toBeNull();
    await fireEvent.click(screen.getByTestId('miner-look'));
  });

  it('is taken at once where there is none yet', async () => {
    const taken = await found(null);
    expect(taken()).toEqual([true]);
  });
});

describe('a former identity', () => {
  it('is gone back to only after a question that says what it means', async () => {
    const { backend } = await settings(richWallet());
    expect(screen.getByTestId('former-identities').textContent).toContain(FORMER.slice(0, 6));
    await fireEvent.click(screen.getByTestId('former-back'));
    await settle();
    const dialog = screen.getByTestId('former-dialog');
    expect(dialog.textContent).toContain('Points stay with the identity that earned them');
    expect(backend.sent('wallet').some((one) => one.payload.ask === 'former_back')).toBe(false);
    await fireEvent.click(screen.getByTestId('former-go'));
    await settle();
    const sent = backend.sent('wallet').at(-1)?.payload;
    expect(sent).toEqual({ ask: 'former_back', address: FORMER, accept: true });
    expect(screen.queryByTestId('former-dialog')).toBeNull();
  });

  it('is not offered where none was replaced, and a refusal is said', async () => {
    const { backend, session } = await settings(walletView());
    expect(screen.queryByTestId('former-open')).toBeNull();
    session.wallet.view = richWallet();
    await settle();
    const message = 'the identity cannot change while mining';
    backend.refusals.set('wallet', { code: 'invalid_request', message, hint: 'press Stop first' });
    await fireEvent.click(screen.getByTestId('former-back'));
    await settle();
    await fireEvent.click(screen.getByTestId('former-go'));
    await settle();
    expect(screen.getByTestId('wallet-identity').textContent).toContain('Press Stop first');
  });
});
