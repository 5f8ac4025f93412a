// The desktop window's backend: two Tauri commands, `rpc` and `subscribe`. No other file imports
// @tauri-apps.

import { Channel, invoke } from '@tauri-apps/api/core';

import { asErrorBody, type Backend } from './backend';
import type { Command, Event, Reply } from './types';

export const tauriBackend: Backend = {
  async call(command: Command): Promise<Reply> {
    try {
      return await invoke<Reply>('rpc', { command });
    } catch (thrown) {
      throw asErrorBody(thrown);
    }
  },

  async listen(handler: (event: Event) => void): Promise<() => void> {
    const channel = new Channel<Event>(handler);
    try {
      await invoke('subscribe', { channel });
    } catch (thrown) {
      throw asErrorBody(thrown);
    }
    // The shell drops its end when the window goes; here it is enough to stop listening.
    return () => {
      channel.onmessage = () => {};
    };
  },
};
