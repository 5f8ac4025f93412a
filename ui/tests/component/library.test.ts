// The library in the window: downloads, the drive, verdicts, settings.

import { fireEvent, screen, within } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import type { LibraryStatus, QueueItem } from '../../src/lib/api/types';
import { speak } from '../../src/lib/language.svelte';
import { library, models, snapshot } from '../fake/samples';
import { open, settle } from './render';

const GB = 1_000_000_000;

function item(changes: Partial<QueueItem>): QueueItem {
  return {
    model: models[2]?.id ?? '',
    state: 'running',
    done_bytes: 2 * GB,
    total_bytes: 8 * GB,
    bytes_per_s: 10_000_000,
    seconds_left: 600,
    problem: null,
    ...changes,
  };
}

function withLibrary(changes: Partial<LibraryStatus>) {
  return snapshot('stopped', { library: { ...library, ...changes } });
}

describe('the downloads', () => {
  it('show speed and time, and can be paused, moved up and cancelled', async () => {
    const second = item({ model: models[3]?.id ?? '', state: 'paused', bytes_per_s: null });
    const { backend } = await open(withLibrary({ queue: [item({}), second] }), 'models');
    const [first, last] = screen.getAllByTestId('queue-item');
    if (!first || !last) throw new Error('two downloads');
    expect(first.textContent).toContain('2.0 GB of 8.0 GB · 10.0 MB/s · 10 min 00 s left');
    expect(last.textContent).toContain('Paused · 2.0 GB of 8.0 GB');
    expect(within(first).queryByTestId('queue-first')).toBeNull();
    expect(within(last).queryByTestId('queue-later')).toBeNull();
    await fireEvent.click(within(first).getByTestId('queue-later'));
    await fireEvent.click(within(first).getByTestId('queue-pause'));
    await fireEvent.click(within(last).getByTestId('queue-pause'));
    await fireEvent.click(within(last).getByTestId('queue-first'));
    await fireEvent.click(within(last).getByTestId('queue-cancel'));
    const sent = backend.sent('library').map((command) => command.payload);
    expect(sent).toEqual([
      { action: 'place', model: models[2]?.id, index: 1 },
      { action: 'pause', model: models[2]?.id },
      { action: 'resume', model: models[3]?.id },
      { action: 'place', model: models[3]?.id, index: 0 },
      { action: 'cancel', model: models[3]?.id },
    ]);
  });

  it('say why they rest and why one failed', async () => {
    const problem = {
      code: 'model_not_ready' as const,
      message: 'it wants a sign-in',
      hint: 'do so',
    };
    const queue = [item({ state: 'failed', problem })];
    await open(withLibrary({ queue, resting: 'Downloads run from 23:00 to 07:00.' }), 'models');
    expect(screen.getByText('Downloads run from 23:00 to 07:00.')).toBeTruthy();
    expect(screen.getByText('It wants a sign-in.')).toBeTruthy();
    expect(screen.queryByTestId('queue-anyway')).toBeNull();
  });

  it('wait for a game, and run all the same if the person wants it', async () => {
    const waits_for = { cause: 'game', program: 'doom', sign: 'listed' } as const;
    const resting = 'Downloads wait: doom is running.';
    const waiting = withLibrary({ queue: [item({ state: 'waiting' })], resting, waits_for });
    const { backend } = await open(waiting, 'models');
    expect(screen.getByTestId('queue-rests').textContent).toContain(resting);
    await fireEvent.click(screen.getByTestId('queue-anyway'));
    expect(backend.sent('library')[0]?.payload).toEqual({ action: 'anyway' });
    speak('german');
    await settle();
    expect(screen.getByTestId('queue-rests').textContent).toContain(
      'Downloads warten: doom läuft.',
    );
    speak('system');
  });
});

describe('the verdicts', () => {
  it('tell numbers and the device', async () => {
    await open(snapshot('stopped'), 'models');
    const fits = screen.getAllByTestId('model-fit').map((line) => line.textContent.trim());
    expect(fits[2]).toBe('Runs slower, with 4-bit weights: takes 5.2 GB of 11.2 GB on RTX 3060');
    expect(fits[4]).toBe('Does not run: needs 25.4 GB, RTX 3060 has 11.2 GB for it');
  });
});

describe('a damaged file', () => {
  it('is named on its model, with what happens now', async () => {
    const damaged = (own: boolean) =>
      withLibrary({
        models: library.models.map((model, n) =>
          n === 1 ? { ...model, own, damaged: 'unet/weights.safetensors' } : model,
        ),
      });
    const { emit } = await open(damaged(false), 'models');
    const line = screen.getByTestId('model-damaged');
    expect(line.textContent).toContain('unet/weights.safetensors is damaged on your drive.');
    expect(line.textContent).toContain('will be fetched again');
    emit({ event: 'snapshot', payload: damaged(true) });
    expect(screen.getByTestId('model-damaged').textContent).toContain('add it again');
    emit({ event: 'snapshot', payload: snapshot('stopped') });
    expect(screen.queryByTestId('model-damaged')).toBeNull();
  });
});

describe('the drive', () => {
  it('offers to clean up above the limit, and asks first', async () => {
    const changes = {
      used_bytes: 70 * GB,
      settings: { ...library.settings, cap_bytes: 60 * GB },
      clean_up: [models[1]?.id ?? ''],
    };
    const { backend } = await open(withLibrary(changes), 'models');
    await fireEvent.click(screen.getByTestId('clean-up'));
    expect(backend.sent('library')).toEqual([]);
    await fireEvent.click(screen.getByTestId('remove-go'));
    expect(backend.sent('library')[0]?.payload).toEqual({
      action: 'remove',
      models: [models[1]?.id],
    });
  });

  it('moves only when mining is stopped', async () => {
    await open(snapshot('working'), 'models');
    await fireEvent.click(screen.getByTestId('move-library'));
    expect(screen.getByTestId<HTMLButtonElement>('folder-go').disabled).toBe(true);
    expect(screen.getByText(/Stop mining first/)).toBeTruthy();
  });

  it('asks for a folder and says how far the move is', async () => {
    const { backend, emit } = await open(snapshot('stopped'), 'models');
    await fireEvent.click(screen.getByTestId('move-library'));
    await fireEvent.input(screen.getByTestId('folder-input'), { target: { value: ' /big/m ' } });
    await fireEvent.click(screen.getByTestId('folder-go'));
    expect(backend.sent('library')[0]?.payload).toEqual({ action: 'move', folder: '/big/m' });
    const activity = { task: 'move' as const, done_bytes: GB, total_bytes: 4 * GB, asked: null };
    emit({ event: 'snapshot', payload: withLibrary({ activity }) });
    await settle();
    expect(screen.getByTestId('library-task').textContent).toContain('1.0 GB of 4.0 GB');
    await fireEvent.click(screen.getByTestId('task-stop'));
    expect(backend.sent('library')[1]?.payload).toEqual({ action: 'stop_task' });
  });
});

describe('the settings of downloads', () => {
  const field = (testid: string) => screen.getByTestId<HTMLInputElement>(testid);
  const change = (testid: string, value: string) =>
    fireEvent.change(field(testid), { target: { value } });

  it('are saved in bytes, and empty means no limit', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    await change('cap-input', '60');
    await change('line-input', '40.5');
    await change('line-input', '');
    await fireEvent.click(field('night-input'));
    await settle();
    const sent = backend.sent('library').map((command) => command.payload);
    const settings = { ...library.settings, cap_bytes: 60 * GB };
    expect(sent).toEqual([
      { action: 'set', settings },
      { action: 'set', settings: { ...settings, bytes_per_s_max: 5_062_500 } },
      { action: 'set', settings: { ...settings, bytes_per_s_max: null } },
      {
        action: 'set',
        settings: { ...settings, window: { from_minute: 1380, until_minute: 420 } },
      },
    ]);
  });

  it('are all kept when they follow each other before a snapshot shows them', async () => {
    const { backend, emit } = await open(snapshot('stopped'), 'settings');
    void change('cap-input', '60');
    void change('connections-select', '8');
    await settle();
    const both = { ...library.settings, cap_bytes: 60 * GB, connections: 8 };
    expect(backend.sent('library')[1]?.payload).toEqual({ action: 'set', settings: both });
    // One that was on its way says the old, and is not believed.
    emit({ event: 'snapshot', payload: snapshot('stopped') });
    expect(field('cap-input').value).toBe('60');
    emit({ event: 'snapshot', payload: withLibrary({ settings: both }) });
    // From now on the program's word counts again.
    const later = { ...both, cap_bytes: 70 * GB };
    emit({ event: 'snapshot', payload: withLibrary({ settings: later }) });
    expect(field('cap-input').value).toBe('70');
  });

  it('keep the second of two changes when the first is refused, and say why', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    backend.refusals.set('library', { code: 'invalid_request', message: 'too little of the line' });
    void change('line-input', '0.01');
    void change('connections-select', '2');
    await settle();
    const settings = { ...library.settings, connections: 2 };
    expect(backend.sent('library')[1]?.payload).toEqual({ action: 'set', settings });
    expect(field('line-input').value).toBe('');
    expect(field('connections-select').value).toBe('2');
    expect(document.body.textContent).toContain('Too little of the line.');
  });

  it('are not lost to what is no amount', async () => {
    const settings = { ...library.settings, cap_bytes: 60 * GB };
    const { backend } = await open(withLibrary({ settings }), 'settings');
    await change('cap-input', '-5');
    await settle();
    expect(backend.sent('library')).toEqual([]);
    expect(field('cap-input').value).toBe('60');
    expect(document.body.textContent).toContain('That is not an amount.');
  });
});

describe('a newer version of a model', () => {
  const newer = (seconds: number | null) =>
    withLibrary({
      models: library.models.map((one, n) =>
        n === 0 ? { ...one, newer: { bytes: 5 * GB, seconds } } : one,
      ),
    });

  it('is told with its size and time, and fetched at a press', async () => {
    const { backend } = await open(newer(600), 'models');
    const notice = screen.getByTestId('model-newer');
    expect(notice.textContent).toContain('5.0 GB to download, about 10 min 00 s.');
    expect(notice.textContent).toContain('The one you have is used');
    await fireEvent.click(screen.getByTestId('model-newer-get'));
    expect(backend.sent('model_fetch').map((one) => one.payload.model)).toEqual([models[0]?.id]);
  });

  it('says no time where none is known, and offers nothing twice', async () => {
    const queued = newer(null);
    queued.library.queue = [item({ model: models[0]?.id ?? '' })];
    await open(queued, 'models');
    expect(screen.getByTestId('model-newer').textContent).toContain('5.0 GB to download. The one');
    expect(screen.queryByTestId('model-newer-get')).toBeNull();
  });
});

describe('a file that the drive does not give', () => {
  const failing = (own: boolean) =>
    withLibrary({
      models: library.models.map((one, n) =>
        n === 0
          ? { ...one, own, unreadable: { file: 'weights.gguf', why: 'Input/output error' } }
          : one,
      ),
    });

  it('is told with what helps, and can be downloaded again', async () => {
    const { backend } = await open(failing(false), 'models');
    const notice = screen.getByTestId('model-unreadable');
    expect(notice.textContent).toContain(
      'The drive could not read weights.gguf (Input/output error).',
    );
    expect(notice.textContent).toContain('another drive');
    await fireEvent.click(screen.getByTestId('model-replace'));
    expect(backend.sent('library').map((one) => one.payload)).toEqual([
      { action: 'replace', model: models[0]?.id },
    ]);
  });

  it('of a model of the person’s own is nothing that a download brings back', async () => {
    await open(failing(true), 'models');
    expect(screen.getByTestId('model-unreadable').textContent).toContain('your own');
    expect(screen.queryByTestId('model-replace')).toBeNull();
  });
});

describe('a library that is away', () => {
  const away = {
    code: 'model_not_ready' as const,
    message:
      'the folder of the model library, `/media/big/models`, is not there; connect its drive',
  };

  it('is told on Home and among the models, and looked for again', async () => {
    const { backend, emit } = await open(withLibrary({ away }));
    expect(screen.getByTestId('library-away').textContent).toContain('/media/big/models');
    await fireEvent.click(screen.getByTestId('library-choose'));
    expect(screen.queryByTestId('move-library')).toBeNull();
    await fireEvent.click(screen.getByTestId('library-look'));
    expect(backend.sent('library').at(-1)?.payload).toEqual({ action: 'look_again' });
    emit({ event: 'snapshot', payload: withLibrary({}) });
    expect(screen.queryByTestId('library-away')).toBeNull();
    expect(screen.getByTestId('move-library')).toBeTruthy();
  });

  it('can be another folder, without a word of copying', async () => {
    const { backend } = await open(withLibrary({ away }), 'models');
    await fireEvent.click(screen.getByTestId('library-choose'));
    const dialog = screen.getByTestId('move-dialog');
    expect(dialog.textContent).toContain('used as they are');
    expect(dialog.textContent).not.toContain('copied');
    const field = screen.getByTestId('folder-input');
    await fireEvent.input(field, { target: { value: '/media/other' } });
    await fireEvent.click(screen.getByTestId('folder-go'));
    await settle();
    const sent = backend.sent('library').at(-1)?.payload;
    expect(sent).toEqual({ action: 'move', folder: '/media/other' });
  });
});

describe('a model of one’s own that is damaged', () => {
  it('can be removed, and is not to be had', async () => {
    const model = models[3];
    if (!model) throw new Error('a model');
    const told = library.models.map((one) =>
      one.model === model.id ? { ...one, own: true, damaged: 'w.bin' } : one,
    );
    const state = { ...model, state: { state: 'absent' as const } };
    await open(
      snapshot('stopped', { models: [state], library: { ...library, models: told } }),
      'models',
    );
    expect(screen.queryByTestId('model-get')).toBeNull();
    expect(screen.getByTestId('model-remove')).toBeTruthy();
  });
});
