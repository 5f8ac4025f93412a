import { describe, expect, it } from 'vitest';

import { controls, ring } from '../../src/features/mining/controls';
import { curlExample } from '../../src/features/settings/curl';
import { asErrorBody, expectReply } from '../../src/lib/api/backend';
import { snapshot } from '../fake/samples';

describe('the big button', () => {
  it.each([
    ['stopped', 'start', false],
    ['needs_you', 'start', false],
    ['starting', 'now', false],
    ['waiting', 'finish', false],
    ['working', 'finish', true],
    ['finishing', 'now', false],
  ] as const)('when %s does %s (stop now beside it: %s)', (state, action, stopNow) => {
    expect(controls(state, null)).toEqual({ action, stopNow, busy: false });
  });

  it('waits while its request is on the way', () => {
    expect(controls('stopped', 'start').busy).toBe(true);
  });

  it('rings with the model while it comes and with the answer while it grows', () => {
    const starting = snapshot('starting');
    expect(ring('starting', null, starting.models)).toBeCloseTo(61 / 98.239872, 3);
    expect(ring('starting', null, [])).toBeNull();
    expect(ring('working', snapshot('working').job, [])).toBeCloseTo(43 / 256, 5);
    expect(ring('waiting', null, [])).toBe(1);
    expect(ring('stopped', null, [])).toBe(0);
  });
});

describe('the seam', () => {
  it('passes errors of the contract on and wraps all others', () => {
    const body = { code: 'overloaded' as const, message: 'full' };
    expect(asErrorBody(body)).toBe(body);
    expect(asErrorBody(new Error('boom'))).toEqual({ code: 'internal', message: 'boom' });
    expect(asErrorBody('text')).toEqual({ code: 'internal', message: 'text' });
  });

  it('refuses a reply of another kind', () => {
    expect(() => expectReply({ reply: 'ok' }, 'doctor')).toThrow('expected a doctor reply');
  });
});

describe('the example', () => {
  it('is a command whose body is JSON', () => {
    const example = curlExample('http://127.0.0.1:43110/v1', 'smollm2-135m-instruct');
    expect(example).toContain('http://127.0.0.1:43110/v1/chat/completions');
    const body: unknown = JSON.parse(/-d '(.*)'/.exec(example)?.[1] ?? '');
    expect(body).toMatchObject({ model: 'smollm2-135m-instruct' });
  });
});
