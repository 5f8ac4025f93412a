// The pages of the window, in the order of the sidebar.

import type { IconName } from '../shared/Icon.svelte';

export type Page = 'home' | 'earnings' | 'playground' | 'models' | 'settings';

export const pages: readonly { page: Page; icon: IconName }[] = [
  { page: 'home', icon: 'home' },
  { page: 'earnings', icon: 'chart' },
  { page: 'playground', icon: 'chat' },
  { page: 'models', icon: 'models' },
  { page: 'settings', icon: 'settings' },
];
