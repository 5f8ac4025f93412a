// What kind of thing went wrong, and what models are good for, in German.

import type { ErrorCode } from '../api/types';

/** Said where the program's own words are in no pattern of de-phrases.ts. */
export const codes: Record<ErrorCode, string> = {
  invalid_request: 'so geht das nicht',
  too_large: 'das ist zu groß',
  unauthorized: 'das Netzwerk lässt diesen Rechner nicht herein',
  forbidden: 'dafür fehlt die Erlaubnis',
  insufficient_credits: 'das Guthaben reicht dafür nicht',
  rate_limited: 'das waren zu viele Anfragen in kurzer Zeit',
  bad_signature: 'eine Unterschrift stimmt nicht',
  not_found: 'das gibt es nicht',
  payload_shredded: 'Anfrage und Antwort sind nach ihrer Aufbewahrungszeit vernichtet worden',
  unknown_model: 'dieses Modell ist unbekannt',
  context_too_long: 'das Gespräch ist länger, als das Modell lesen kann',
  model_not_ready: 'das Modell ist nicht bereit',
  model_unreadable: 'die Datei des Modells ist beschädigt oder von unbekannter Art',
  no_node_available: 'gerade bietet niemand dieses Modell an',
  deadline_passed: 'die Zeit ist abgelaufen',
  stale_lease: 'der Job ist inzwischen vergeben oder abgerechnet',
  overloaded: 'gerade ist zu viel los',
  cancelled: 'abgebrochen',
  engine_failed: 'die Recheneinheit ist ausgefallen; der Job geht an einen anderen Rechner',
  declined: 'der Betreiber dieses Rechners nimmt solche Inhalte nicht an',
  unreachable: 'das Netzwerk ist nicht erreichbar',
  unsupported_version: 'Programm und Netzwerk sprechen verschiedene Versionen',
  internal: 'im Programm ist etwas schiefgegangen',
};

/** By the model's id: what stands as `summary` in its manifest. */
export const summaries: Readonly<Record<string, string>> = {
  'smollm2-135m-instruct':
    'Ein kleines Chat-Modell, das auf jedem PC läuft, auch ohne Grafikkarte: genau richtig für deine ersten Punkte.',
  'neurino-toybox-64':
    'Unser eigenes kleines Bildmodell: einfache Formen und Szenen in 64 x 64 Pixeln, auf jedem PC in ein, zwei Sekunden.',
};
