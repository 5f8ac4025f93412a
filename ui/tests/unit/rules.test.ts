import { describe, expect, it } from 'vitest';

import { addsUp, recompute } from '../../src/features/earnings/recompute';
import { controls, ring } from '../../src/features/mining/controls';
import { curlExample } from '../../src/features/settings/curl';
import { asErrorBody, expectReply } from '../../src/lib/api/backend';
import { pictureReceipt, receipt, snapshot } from '../fake/samples';

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

describe('a receipt', () => {
  it('is computed again from its own figures', () => {
    expect(recompute(receipt(0))).toBe(105_000);
    expect(addsUp(receipt(0))).toBe(true);
  });

  it('of a picture counts pixels times steps', () => {
    expect(recompute(pictureReceipt())).toBe(15_625);
    const large = pictureReceipt();
    large.quote = { ...large.quote, units: 680 * 1024 * 35, factor: 300_000 };
    expect(recompute(large)).toBe(1_394_531);
  });

  it('is rounded down once, at the end', () => {
    // 7 tokens x 1000 x 0.333333 x 1.15 = 2683.33 micro-points.
    const odd = receipt(0);
    odd.usage = { prompt_tokens: 3, completion_tokens: 4 };
    odd.quote = { ...odd.quote, factor: 333_333, multiplier: 1_150_000, amount_micro: 2683 };
    expect(recompute(odd)).toBe(2683);
    expect(addsUp(odd)).toBe(true);
  });

  it('that pays something else does not add up', () => {
    const wrong = receipt(0);
    wrong.quote = { ...wrong.quote, amount_micro: wrong.quote.amount_micro + 1 };
    expect(addsUp(wrong)).toBe(false);
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
