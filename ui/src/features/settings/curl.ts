// An example that works as it stands: one question to the gateway from a terminal.

import type { ModelId } from '../../lib/api/types';

export function curlExample(gatewayUrl: string, model: ModelId): string {
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'Say hello.' }] });
  return [
    `curl ${gatewayUrl}/chat/completions \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d '${body}'`,
  ].join('\n');
}
