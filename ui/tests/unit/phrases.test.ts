// Every sentence for people in the program's sources has its German, and the German fits.

import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { shown, shownError } from '../../src/lib/say';
import { speak } from '../../src/lib/language.svelte';
import { phrases } from '../../src/lib/words/de-phrases';
import { phrase } from '../../src/lib/words/say-tools';
import { sentencesOf } from './rust-words';

const ROOT = join(import.meta.dirname, '../../..');

/** Where sentences that reach the window are made: files, or folders with all below. */
const SOURCES = [
  'crates/neurino-app/src',
  'crates/neurino-chain/src',
  'crates/neurino-client/src/handshake.rs',
  'crates/neurino-client/src/http.rs',
  'crates/neurino-client/src/lib.rs',
  'crates/neurino-client/src/long_poll.rs',
  'crates/neurino-client/src/tls.rs',
  'crates/neurino-config/src/error.rs',
  'crates/neurino-control/src/alerts.rs',
  'crates/neurino-control/src/rules.rs',
  'crates/neurino-coordinator/src/jobs.rs',
  'crates/neurino-earnings/src/tariff.rs',
  'crates/neurino-engine/src/image.rs',
  'crates/neurino-engine/src/link.rs',
  'crates/neurino-engine/src/local.rs',
  'crates/neurino-engine/src/memory.rs',
  'crates/neurino-engine/src/queue.rs',
  'crates/neurino-engine/src/supervisor.rs',
  'crates/neurino-engine/src/worker.rs',
  'crates/neurino-hardware/src/nvidia.rs',
  'crates/neurino-hardware/src/power.rs',
  'crates/neurino-miner/src',
  'crates/neurino-model-store/src/error.rs',
  'crates/neurino-model-store/src/fetch.rs',
  'crates/neurino-model-store/src/lists.rs',
  'crates/neurino-model-store/src/lists',
  'crates/neurino-model-store/src/relocate.rs',
  'crates/neurino-model-store/src/signed.rs',
  'crates/neurino-model-store/src/source',
  'crates/neurino-platform/src/awake.rs',
  'crates/neurino-platform/src/hotkey.rs',
  'crates/neurino-power/src/journal.rs',
  'crates/neurino-update/src/error.rs',
  'src-tauri/src/notice.rs',
  'crates/neurino-wallet/src',
];

/** Made there, and not shown as a sentence of its own in the window. */
const ELSEWHERE = new Set([
  // The English sentences of codes that cross as data.
  'crates/neurino-app/src/sentence.rs',
  // The bundle stays English, and the practice network's own questions are asked in English.
  'crates/neurino-app/src/bundle.rs',
  'crates/neurino-app/src/demand.rs',
  'crates/neurino-app/src/telemetry.rs',
  // The terminal alone asks there.
  'crates/neurino-app/src/door.rs',
  // Gateways and the terminal alone take vouchers.
  'crates/neurino-wallet/src/voucher.rs',
]);

/** Texts that only look like sentences: files' contents, terms of file formats, parts of others. */
const NO_SENTENCE: readonly RegExp[] = [
  /^\[Desktop Entry\]/,
  /^my home$/,
  // What the system's own list of what keeps it awake shows, and a command to type.
  /^AI jobs are running$|nvidia-smi/,
  // Put after the state sentence; the window has it as a flag.
  /^\{\} Going easy while you use the computer\.$/,
  /^(Seed Phrase|Identity Wallet Address)/,
  /^neurino key file v/,
  /^\{\} of \{\}$|^identity of \{\}$|^\(process \{\}\)$|^\(CUDA \{\}\)$/,
  // The report on the driver's layers, which the terminal alone prints.
  /^(cannot be seen on this system|none on the PCI bus|no driver|10de:|version \{\}|not loaded)/,
  /^(not installed|finds no driver|of another version than|fails: |kernel driver|driver library)/,
  /^(CUDA version|\{\} \(at least)/,
  // What is done to a file, put into "cannot ... a file": the path says more.
  /^(create a folder in|wait for pip in|No module named pip|read the source of)$/,
  // The steps of a job, for the log.
  /^(a job runs on the first|both places are in use|the one used last)/,
  /^set aside$/,
  /^the (plan leaves layers out|model is loaded)$/,
];

function files(path: string): string[] {
  const whole = join(ROOT, path);
  if (statSync(whole).isFile()) return [path];
  return readdirSync(whole).flatMap((name) => {
    const below = `${path}/${name}`;
    if (statSync(join(ROOT, below)).isDirectory()) return files(below);
    return name.endsWith('.rs') && name !== 'tests.rs' ? [below] : [];
  });
}

const sources = SOURCES.flatMap(files).filter((path) => !ELSEWHERE.has(path));

/** A sentence as the program would say it, with something put in. */
function filled(sentence: string): string {
  let n = 0;
  return sentence.replace(/\{\}/g, () => `@${(n += 1)}`);
}

describe('the phrase book', () => {
  it.each(sources)('knows what %s says', (path) => {
    const missing = sentencesOf(join(ROOT, path))
      .filter((sentence) => !NO_SENTENCE.some((other) => other.test(sentence)))
      .filter((sentence) => phrase(filled(sentence)) === null);
    expect(missing).toEqual([]);
  });

  it('finds what it is to find in the sources', () => {
    const all = sources.flatMap((path) => sentencesOf(join(ROOT, path)));
    expect(all.length).toBeGreaterThan(250);
    expect(all).toContain('press Stop first');
    expect(all).toContain(
      'an address has 40 characters after `0x`, and this has {}; copy it again whole',
    );
  });

  it.each(phrases.map(([english, german]) => [english, german] as const))(
    '%s',
    (english, german) => {
      expect(german.trim()).not.toBe('');
      const holes = english.split('{}').length - 1;
      for (const [, n] of german.matchAll(/\{(\d)\}/g)) expect(Number(n)).toBeLessThan(holes);
      // A command to type and a name of a file are the same in every language.
      for (const [command] of english.matchAll(/`(?:neurino [a-z ]+|[\w.]+\.toml)/g)) {
        expect(german).toContain(command);
      }
      const words = german.replace(/`[^`]*`/g, '');
      expect(words).not.toMatch(
        /\b(the|and|with|your|this|that|is|are|for|from|when|which|has|have|can)\b/i,
      );
    },
  );

  it('has each sentence once', () => {
    const asked = phrases.map(([english]) => english);
    expect(asked.filter((english, at) => asked.indexOf(english) !== at)).toEqual([]);
  });
});

describe('an error', () => {
  beforeEach(() => speak('german'));
  afterEach(() => {
    speak('system');
    localStorage.clear();
  });

  it('is said in German with its way out', () => {
    const said = shownError({
      code: 'invalid_request',
      message: 'the identity cannot change while mining',
      hint: 'press Stop first',
    });
    expect(said).toEqual({
      message: 'die Identität kann nicht wechseln, solange das Mining läuft',
      hint: 'drück erst auf Stopp',
    });
  });

  it('says causes in causes, and amounts as Germans write them', () => {
    expect(
      shown('The identity key cannot be opened: the key file /k cannot be used: it is empty.'),
    ).toBe(
      'der Schlüssel der Identität lässt sich nicht öffnen: die Schlüsseldatei /k lässt sich nicht nutzen: sie ist leer',
    );
    expect(shown('1.5 GiB free in /models.')).toBe('1,5 GiB frei in /models');
    expect(shown('12.0 GiB of video memory, 0.9 GiB in use.')).toContain('12,0 GiB');
  });

  it('that nobody knows is told by its kind, with its own words beside it', () => {
    const said = shownError({ code: 'internal', message: 'os error 5', hint: 'reboot it' });
    expect(said.message).toBe('im Programm ist etwas schiefgegangen');
    expect(said.detail).toBe('os error 5 · reboot it');
    expect(said.hint).toBeUndefined();
  });

  it('has a way out that is German in whole, or none', () => {
    const hint = 'Try again: Neurino fetches the file anew.';
    const said = shownError({ code: 'internal', message: 'the window is gone', hint });
    expect(said).toEqual({ message: 'Das Fenster ist weg', detail: hint });
  });

  it('of the window itself stays as it is', () => {
    expect(shownError({ message: 'Neurino antwortet diesem Fenster nicht.' })).toEqual({
      message: 'Neurino antwortet diesem Fenster nicht.',
    });
  });
});
