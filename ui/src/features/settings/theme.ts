// The theme on the page, remembered so that a new window opens in it without a flash.

import type { Theme } from '../../lib/api/types';

const KEY = 'theme';

/** Shows a theme; `null`, before the preferences are known, shows the remembered one. */
export function applyTheme(theme: Theme | null): void {
  const shown = theme ?? remembered();
  if (shown === 'light' || shown === 'dark') {
    document.documentElement.dataset.theme = shown;
  } else {
    delete document.documentElement.dataset.theme;
  }
  if (theme) remember(theme);
}

// A web view may refuse storage; then the window merely starts in the system's colours.
function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function remember(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    return;
  }
}
