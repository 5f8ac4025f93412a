// Words of the hotkey.

/** What stands on keys, where that differs from language to language. */
const names = {
  Ctrl: 'Ctrl',
  Shift: 'Shift',
  Space: 'Space',
  Insert: 'Insert',
  Home: 'Home',
  End: 'End',
  PageUp: 'Page Up',
  PageDown: 'Page Down',
};

export const hotkey = {
  title: 'Hotkey',
  intro:
    'Pauses mining and resumes it, whichever window is in front. Default: off. Neurino has the keys while it runs and gives them back when it quits.',
  off: 'No hotkey',
  choose: 'Choose keys',
  change: 'Change keys',
  remove: 'Remove hotkey',
  cancel: 'Cancel',
  press: 'Press the keys together',
  escape: 'Esc leaves everything as it is.',
  bare: (keys: string) =>
    `${keys} is needed by other programs. Hold Ctrl, Alt or the logo key too.`,
  unknown: 'That key cannot be a hotkey. Take a letter, a digit or a function key.',
  refused: 'The hotkey stays as it was',
  dead: 'The hotkey does nothing at the moment',
  wayland:
    'Under Wayland no program can take a key for itself. In the desktop’s own settings for the keyboard, put this command on a key:',
  notHere:
    'This system gives no keys to programs. Where its settings put a command on a key, take this one:',
  names,
};
