// The wallet and the guide as the program would show them.

import type {
  CheckedAddress,
  FoundMiner,
  OnboardingView,
  WalletView,
} from '../../src/lib/api/types';
import { IDENTITY, NOW_MS, painter, starter } from './samples';

export const REWARD = '0x70997970C51812dc3A010C7d01b50e0d17dc79C8';
export const FORMER = '0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC';
export const WORDS =
  'legal winner thank year wave sausage worth useful legal winner thank yellow'.split(' ');

/** Three squares and some dots: a picture of a code, of no text. */
const qr = {
  modules: 21,
  path: 'M0 0h7v7h-7zM14 0h7v7h-7zM0 14h7v7h-7zM9 2h1v1h-1zM11 4h2v1h-2zM9 9h3v3h-3zM15 10h4v1h-4zM13 15h2v4h-2zM17 17h3v1h-3z',
};

const steps = [
  { nfts: 1, multiplier: 1_100_000 },
  { nfts: 2, multiplier: 1_150_000 },
  { nfts: 3, multiplier: 1_200_000 },
  { nfts: 5, multiplier: 1_250_000 },
  { nfts: 10, multiplier: 1_300_000 },
];

export function walletView(changes: Partial<WalletView> = {}): WalletView {
  return {
    identity: IDENTITY,
    key_store: 'the key store of the operating system',
    former: [],
    backed_up_at_ms: null,
    reward: null,
    history: [],
    problem: null,
    keys_folder: '/home/ada/.heurist-keys',
    chain: {
      nodes: [],
      checked_at_ms: null,
      binding: { fact: 'no_reward' },
      nfts: { fact: 'no_reward' },
      collection: null,
      staked: { fact: 'no_reward' },
      boost: {
        note: "Neurino's own steps: the original table is not public. Each piece boosts the three best cards of its owner.",
        cards_per_nft: 3,
        steps,
        cards: [],
      },
    },
    ...changes,
  };
}

/** Everything set and read. */
export function richWallet(): WalletView {
  const empty = walletView();
  return walletView({
    former: [FORMER],
    backed_up_at_ms: NOW_MS - 86_400_000,
    reward: { address: REWARD, since_ms: NOW_MS - 3 * 86_400_000, qr },
    history: [
      { address: FORMER, since_ms: NOW_MS - 9 * 86_400_000, until_ms: NOW_MS - 3 * 86_400_000 },
    ],
    chain: {
      ...empty.chain,
      nodes: [
        { host: 'rpc.example', chain: 'Base' },
        { host: '127.0.0.1:8545', chain: 'ZKsync Era Sepolia' },
      ],
      checked_at_ms: Date.now() - 5 * 60_000,
      binding: { fact: 'bound', identity: IDENTITY, ours: true },
      nfts: { fact: 'pieces', count: 2 },
      collection: FORMER,
      staked: { fact: 'staked', amount: '2500.5', rate: '1.1' },
      boost: {
        ...empty.chain.boost,
        cards: [{ name: 'NVIDIA GeForce RTX 4090', multiplier: 1_150_000 }],
      },
    },
  });
}

export const checked: CheckedAddress = {
  address: REWARD,
  proven: true,
  looks_like: null,
  in_use: false,
  qr,
};

export const found: FoundMiner = {
  miner_ids: [`${REWARD.toLowerCase()}-desk`],
  rewards: [REWARD],
  keys: [
    {
      path: `/home/ada/.heurist-keys/${REWARD.toLowerCase()}.txt`,
      reward: REWARD,
      identity: FORMER,
      readable_by_others: true,
    },
  ],
  problems: ['MINER_ID_1: an address begins with `0x`.'],
  models_folder: '/home/ada/.cache/heurist',
  models_count: 3,
  models_bytes: 12_400_000_000,
};

export function guideView(changes: Partial<OnboardingView> = {}): OnboardingView {
  return {
    open: false,
    step: 'reward',
    models_folder: '/home/ada/.local/share/neurino/models',
    free_bytes: 312_000_000_000,
    models: [
      {
        model: starter.id,
        comes_along: false,
      },
      {
        model: painter.id,
        comes_along: true,
      },
    ],
    at_login: false,
    ...changes,
  };
}
