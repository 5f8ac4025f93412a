// The wallet and the guide of the first start, as the program shows them. Words of a phrase are
// held only while the person holds the button.

import { asErrorBody, expectReply, type Backend } from '../../lib/api/backend';
import type {
  CheckedAddress,
  ErrorBody,
  FoundMiner,
  OnboardingCommand,
  OnboardingView,
  WalletCommand,
  WalletReply,
  WalletView,
} from '../../lib/api/types';

type Answer<K extends WalletReply['answer']> = Extract<WalletReply, { answer: K }>['with'];

export class Wallet {
  view = $state.raw<WalletView | null>(null);
  guide = $state.raw<OnboardingView | null>(null);
  /** The recovery words, while they are shown. */
  words = $state.raw<readonly string[] | null>(null);
  readonly #backend: Backend;
  #holding = false;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Reads both states. */
  async connect(): Promise<void> {
    const reply = await this.#backend.call({ cmd: 'onboarding', payload: { ask: 'look' } });
    this.guide = expectReply(reply, 'onboarding').payload;
    this.view = await this.#ask({ ask: 'look' }, 'view');
  }

  /** Changes something and shows the new state; the reason why not, if it was refused. */
  async change(command: WalletCommand): Promise<ErrorBody | null> {
    try {
      this.view = await this.#ask(command, 'view');
      return null;
    } catch (thrown) {
      return asErrorBody(thrown);
    }
  }

  /** Tells the guide something; nothing of it is worth an error on its own page. */
  async steps(command: OnboardingCommand): Promise<ErrorBody | null> {
    try {
      const reply = await this.#backend.call({ cmd: 'onboarding', payload: command });
      this.guide = expectReply(reply, 'onboarding').payload;
      return null;
    } catch (thrown) {
      return asErrorBody(thrown);
    }
  }

  /** Shows the words until `hide`. */
  async show(): Promise<void> {
    this.#holding = true;
    const { words } = await this.#ask({ ask: 'reveal' }, 'words');
    // Let go before the answer came.
    this.words = this.#holding ? words : null;
  }

  hide(): void {
    this.#holding = false;
    this.words = null;
  }

  /** Three places whose words are to be entered. */
  async quiz(): Promise<number[]> {
    return (await this.#ask({ ask: 'quiz' }, 'quiz')).places;
  }

  check(text: string): Promise<CheckedAddress> {
    return this.#ask({ ask: 'reward_check', text }, 'checked');
  }

  async exportKey(folder: string): Promise<string> {
    return (await this.#ask({ ask: 'key_export', folder, accept: true }, 'exported')).path;
  }

  look(folder: string): Promise<FoundMiner> {
    return this.#ask({ ask: 'miner_look', folder }, 'found');
  }

  async #ask<K extends WalletReply['answer']>(command: WalletCommand, kind: K): Promise<Answer<K>> {
    const reply = await this.#backend.call({ cmd: 'wallet', payload: command });
    const { answer, with: content } = expectReply(reply, 'wallet').payload;
    if (answer !== kind) throw new Error(`expected a ${kind} answer and got ${answer}`);
    return content as Answer<K>;
  }
}
