import { beforeEach, describe, expect, it } from 'vitest';

import { Studio, type Picture } from '../../src/features/picture/studio.svelte';
import { FakeBackend } from '../fake/backend';
import { IDENTITY, painter, pictureReceipt, PNG, snapshot } from '../fake/samples';

let backend: FakeBackend;
let studio: Studio;
let nowMs: number;

beforeEach(() => {
  nowMs = 1_000_000;
  backend = new FakeBackend(snapshot('waiting'));
  studio = new Studio(
    backend,
    () => nowMs,
    () => 0.5,
  );
  studio.models = [painter];
  studio.payments.identity = IDENTITY;
});

async function ask(prompt: string): Promise<Picture> {
  studio.draft = prompt;
  await studio.send();
  return last();
}

function last(): Picture {
  const picture = studio.pictures[studio.pictures.length - 1];
  if (!picture) throw new Error('there is no picture');
  return picture;
}

describe('asking for a picture', () => {
  it('leaves to the model what the person left open, and draws a seed', async () => {
    const { id } = await ask('  a red circle ');
    expect(backend.sent('picture_send')).toEqual([
      {
        cmd: 'picture_send',
        payload: {
          picture: id,
          job: {
            model: painter.id,
            prompt: 'a red circle',
            negative_prompt: '',
            width: 64,
            height: 64,
            steps: 20,
            guidance: 5,
            seed: 2 ** 31,
            preview: true,
          },
        },
      },
    ]);
    expect(studio.draft).toBe('  a red circle ');
  });

  it('takes the wishes of the person', async () => {
    Object.assign(studio.wishes, { negative: 'text', width: 96, steps: 3, guidance: 0, seed: 0 });
    const { job } = await ask('x');
    expect(job).toMatchObject({
      negative_prompt: 'text',
      width: 96,
      height: 64,
      steps: 3,
      guidance: 0,
      seed: 0,
    });
  });

  it('makes one at a time and sends no blanks', async () => {
    await ask('one');
    await ask('two');
    expect(backend.sent('picture_send')).toHaveLength(1);
    await studio.cancel();
    await ask('   ');
    expect(backend.sent('picture_send')).toHaveLength(1);
    await studio.clear();
    expect(studio.pictures).toHaveLength(0);
  });

  it('is refused in words', async () => {
    backend.refusals.set('picture_send', { code: 'overloaded', message: 'too many' });
    const picture = await ask('x');
    expect([picture.status, picture.error?.message]).toEqual(['failed', 'too many']);
    await studio.again(picture);
    expect(studio.pictures).toHaveLength(1);
    expect(last().job.seed).toBe(picture.job.seed);
  });
});

describe('a picture', () => {
  it('appears step by step', async () => {
    const { id } = await ask('x');
    studio.update(id, { kind: 'queued' });
    expect(last().status).toBe('queued');
    studio.update(id, { kind: 'preview', png: 'AA==' });
    expect([last().status, last().png]).toEqual(['drawing', 'AA==']);
    studio.update(id, { kind: 'done', png: PNG, duration_ms: 900 });
    expect([last().status, last().png, last().durationMs]).toEqual(['done', PNG, 900]);
    studio.update(id, { kind: 'preview', png: 'BB==' });
    expect(last().png).toBe(PNG);
  });

  it('that is stopped keeps nothing of what could be seen', async () => {
    const { id } = await ask('x');
    studio.update(id, { kind: 'preview', png: 'AA==' });
    await studio.cancel();
    expect([last().status, last().png]).toEqual(['cancelled', null]);
    expect(backend.sent('picture_cancel')).toHaveLength(1);
    studio.update(id, { kind: 'done', png: PNG, duration_ms: 1 });
    expect(last().status).toBe('cancelled');
  });

  it('is saved, or says why not', async () => {
    const { id } = await ask('x');
    studio.update(id, { kind: 'done', png: PNG, duration_ms: 900 });
    backend.refusals.set('picture_save', { code: 'internal', message: 'the disk is full' });
    await studio.save(last());
    expect(last().saveError?.message).toBe('the disk is full');
    await studio.save(last());
    expect(last().savedAs).toContain('neurino-1.png');
    expect(last().saveError).toBeNull();
  });

  it('knows what it earned, in whichever order the news come', async () => {
    const first = await ask('x');
    studio.settled(pictureReceipt(0));
    studio.update(first.id, { kind: 'done', png: PNG, duration_ms: 900 });
    expect(last().earned).toBe(15_625);
    const second = await ask('y');
    studio.update(second.id, { kind: 'done', png: PNG, duration_ms: 900 });
    expect(last().earned).toBeNull();
    studio.settled(pictureReceipt(1, { node: `0x${'0'.repeat(40)}` }));
    expect(last().earned).toBeNull();
    studio.settled(pictureReceipt(2));
    expect(last().earned).toBe(15_625);
  });

  it('of which there are too many is forgotten, oldest first', async () => {
    for (let n = 0; n < 30; n += 1) {
      const { id } = await ask(`picture ${n}`);
      studio.update(id, { kind: 'done', png: PNG, duration_ms: 1 });
    }
    expect(studio.pictures).toHaveLength(24);
    expect(studio.pictures[0]?.job.prompt).toBe('picture 6');
  });
});
