// What the fake program answers to the wallet's commands.

import type { ErrorBody, WalletCommand, WalletReply } from '../../src/lib/api/types';
import type { FakeBackend } from './backend';
import { checked, found, richWallet, WORDS } from './wallet';

export function answerWallet(backend: FakeBackend, command: WalletCommand): WalletReply {
  const refuse = (message: string): never => {
    throw { code: 'invalid_request', message } satisfies ErrorBody;
  };
  switch (command.ask) {
    case 'reveal':
      return { answer: 'words', with: { words: [...WORDS] } };
    case 'quiz':
      return { answer: 'quiz', with: { places: [2, 5, 12] } };
    case 'quiz_answer':
      if (command.words.join(' ') !== 'winner wave yellow') refuse('one word is another one');
      backend.wallet = { ...backend.wallet, backed_up_at_ms: 1_763_800_000_000 };
      break;
    case 'reward_check':
      if (!command.text.startsWith('0x')) refuse('an address of this kind begins with `0x`');
      return {
        answer: 'checked',
        with: { ...checked, proven: command.text !== command.text.toLowerCase() },
      };
    case 'reward_set':
      backend.wallet = { ...backend.wallet, reward: richWallet().reward };
      break;
    case 'reward_remove':
      backend.wallet = { ...backend.wallet, reward: null };
      break;
    case 'key_export':
      return { answer: 'exported', with: { path: `${command.folder}/0x70.txt` } };
    case 'miner_look':
      return { answer: 'found', with: found };
    default:
      break;
  }
  return { answer: 'view', with: backend.wallet };
}
