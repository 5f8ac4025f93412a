// The language of the window: which one is shown, its locale, and the catalogue behind `t`.

import type { Language } from './api/types';
import { en } from './strings';
import { de } from './words/de';

/** Languages with a catalogue. English is the source, and what any other system language gets. */
export type Tongue = 'en' | 'de';

/** The shape of a catalogue: the keys and the parameters of the English one, with any words. */
export type Catalogue = Worded<typeof en>;

type Worded<T> = T extends (...values: infer Values) => string
  ? (...values: Values) => string
  : T extends string
    ? string
    : T extends readonly unknown[] | object
      ? { readonly [K in keyof T]: Worded<T[K]> }
      : T;

const KEY = 'language';

const chosen = $state<{ language: Language }>({ language: remembered() });

/** Shows a language at once; `null`, before the preferences are known, shows the remembered one. */
export function speak(language: Language | null): void {
  const next = language ?? remembered();
  chosen.language = next;
  if (language) remember(language);
  globalThis.document?.documentElement.setAttribute('lang', tongueOf(next));
}

/** The language shown. */
export function tongue(): Tongue {
  return tongueOf(chosen.language);
}

/** The locale of numbers and dates: the system's where it is of the shown language. */
export function locale(): string {
  const system = usableLocale(globalThis.navigator?.language);
  const shown = tongue();
  if (baseOf(system) === shown) return system;
  return shown === 'de' ? 'de-DE' : 'en-GB';
}

/** A name that Intl takes. WebKit under `LANG=C` reports "C", which it refuses by throwing. */
export function usableLocale(asked: string | undefined): string {
  try {
    return asked ? (Intl.getCanonicalLocales(asked)[0] ?? 'en-GB') : 'en-GB';
  } catch {
    return 'en-GB';
  }
}

/** The words of the shown language. Read where they are shown, so that they follow a change. */
export const t: Catalogue = new Proxy({} as Catalogue, {
  get: (_, key) => Reflect.get(tongue() === 'de' ? de : en, key),
});

function tongueOf(language: Language): Tongue {
  if (language === 'german') return 'de';
  if (language === 'english') return 'en';
  return baseOf(usableLocale(globalThis.navigator?.language)) === 'de' ? 'de' : 'en';
}

function baseOf(tag: string): string {
  return tag.split('-')[0] ?? '';
}

// A web view may refuse storage; then the window merely starts in the system's language.
function remembered(): Language {
  try {
    const found = globalThis.localStorage?.getItem(KEY);
    return found === 'english' || found === 'german' ? found : 'system';
  } catch {
    return 'system';
  }
}

function remember(language: Language): void {
  try {
    globalThis.localStorage?.setItem(KEY, language);
  } catch {
    return;
  }
}
