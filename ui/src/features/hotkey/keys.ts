// What a person presses, as the program writes it: `Ctrl+Alt+M`.

/** Keys with a name of their own, by the name that the page gives them. */
const NAMED: Readonly<Record<string, string>> = {
  ' ': 'Space',
  Insert: 'Insert',
  Home: 'Home',
  End: 'End',
  PageUp: 'PageUp',
  PageDown: 'PageDown',
  ArrowLeft: 'Left',
  ArrowUp: 'Up',
  ArrowRight: 'Right',
  ArrowDown: 'Down',
  Pause: 'Pause',
};

/** What stands on these keys everywhere. */
const ARROWS: Readonly<Record<string, string>> = { Left: '←', Up: '↑', Right: '→', Down: '↓' };

/** Keys that take a hotkey without Ctrl, Alt or the logo: nothing else needs them. */
const SPARE = /^(Pause|F1[3-9]|F2[0-4])$/;

type Press = Pick<KeyboardEvent, 'key' | 'code' | 'ctrlKey' | 'altKey' | 'shiftKey' | 'metaKey'>;

/** The modifiers that are held, each by its name. */
function modifiers(press: Press): string[] {
  const held = [press.ctrlKey, press.altKey, press.shiftKey, press.metaKey];
  return ['Ctrl', 'Alt', 'Shift', 'Super'].filter((_, at) => held[at]);
}

/** The key beside the modifiers; nothing while only modifiers are held. */
function keyOf({ key, code }: Press): string | null {
  if (NAMED[key]) return NAMED[key];
  if (/^F([1-9]|1\d|2[0-4])$/.test(key)) return key;
  if (/^[a-z]$/i.test(key)) return key.toUpperCase();
  // Shift and Alt make other signs of keys; where the key lies tells which one it is.
  return /^(?:Key([A-Z])|Digit(\d))$/.exec(code)?.slice(1).find(Boolean) ?? null;
}

/** What a press comes to: a hotkey, keys that other programs need, or modifiers alone. */
export type Pressed =
  | { kind: 'hotkey'; keys: string }
  | { kind: 'bare'; keys: string }
  | { kind: 'unknown' }
  | { kind: 'held'; modifiers: string[] };

export function pressed(press: Press): Pressed {
  const held = modifiers(press);
  if (/^(Control|Alt|AltGraph|Shift|Meta|OS|Super|Hyper)$/.test(press.key)) {
    return { kind: 'held', modifiers: held };
  }
  const key = keyOf(press);
  if (!key) return { kind: 'unknown' };
  const keys = [...held, key].join('+');
  const fits = held.some((one) => one !== 'Shift') || SPARE.test(key);
  return { kind: fits ? 'hotkey' : 'bare', keys };
}

/** The keys one by one, in the words of the language. */
export function keyNames(keys: string, names: Readonly<Record<string, string>>): string[] {
  return keys.split('+').map((key) => names[key] ?? ARROWS[key] ?? key);
}
