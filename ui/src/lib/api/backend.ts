// The one seam between the views and the program: whoever implements it can drive the window.

import type { Command, ErrorBody, Event, Reply } from './types';

export interface Backend {
  /** Carries out a command. Rejects with an ErrorBody. */
  call(command: Command): Promise<Reply>;
  /** Sends every event to the handler until the returned function is called. */
  listen(handler: (event: Event) => void): Promise<() => void>;
}

/** Whatever was thrown, as the contract's error. */
export function asErrorBody(thrown: unknown): ErrorBody {
  if (typeof thrown === 'object' && thrown !== null && 'code' in thrown && 'message' in thrown) {
    return thrown as ErrorBody;
  }
  const detail = thrown instanceof Error ? thrown.message : String(thrown);
  return { code: 'internal', message: detail };
}

/** The payload of the reply that the command promises; anything else is a broken contract. */
export function expectReply<K extends Reply['reply']>(
  reply: Reply,
  kind: K,
): Extract<Reply, { reply: K }> {
  if (reply.reply !== kind) {
    throw new Error(`expected a ${kind} reply and got ${reply.reply}`);
  }
  return reply as Extract<Reply, { reply: K }>;
}
