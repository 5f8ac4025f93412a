// The official Node client against a running gateway: every case by name, then a tally.
//
// Reads NEURINO_BASE_URL, NEURINO_API_KEY, NEURINO_MODEL, NEURINO_NODE_PACKAGES, the folder whose
// node_modules holds the client, and NEURINO_IMAGE_MODEL; without the last the cases of pictures take
// what the gateway has, and are skipped if it has none. Arguments choose cases by name. Ends with the
// line `N passed, N failed`, and with status 1 if one failed.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const packages = process.env.NEURINO_NODE_PACKAGES ?? '.';
const OpenAI = createRequire(path.join(packages, 'package.json'))('openai');

const baseURL = process.env.NEURINO_BASE_URL;
const apiKey = process.env.NEURINO_API_KEY;
const model = process.env.NEURINO_MODEL;
const client = new OpenAI({ baseURL, apiKey, timeout: 120_000, maxRetries: 0 });

const question = [{ role: 'user', content: 'Name three colours of the rainbow.' }];
const greedy = { model, messages: question, temperature: 0, max_tokens: 24 };

function tool(name, key, values) {
  const parameters = {
    type: 'object',
    properties: { [key]: { type: 'string', enum: values } },
    required: [key],
    additionalProperties: false,
  };
  return { type: 'function', function: { name, description: `Calls ${name}.`, parameters } };
}

const cities = ['Paris', 'Rome'];
const tools = {
  messages: [{ role: 'user', content: 'What is the weather like in Paris?' }],
  tools: [tool('get_weather', 'city', cities), tool('get_time', 'zone', ['CET', 'UTC'])],
  max_tokens: 160,
};

const chat = (changes = {}) => client.chat.completions.create({ ...greedy, ...changes });

/** Awaits a refusal of this very class with these fields, and returns it. */
async function refused(kind, call, fields = {}) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor.name, kind.name, `${error}`);
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, `${error}`);
    return error;
  }
  assert.fail(`no error, but ${kind.name} was expected`);
}

/** What a stream says, by choice; checks what holds of every stream. */
async function read(stream) {
  const texts = {};
  const ends = {};
  let usage = null;
  for await (const chunk of stream) {
    assert.equal(chunk.object, 'chat.completion.chunk');
    if (chunk.usage) {
      assert.deepEqual(chunk.choices, []);
      usage = chunk.usage;
    }
    for (const choice of chunk.choices) {
      if (!(choice.index in texts)) {
        assert.equal(choice.delta.role, 'assistant');
        texts[choice.index] = '';
      }
      assert.ok(!(choice.index in ends), 'nothing follows the end of a choice');
      texts[choice.index] += choice.delta.content ?? '';
      if (choice.finish_reason !== null) ends[choice.index] = choice.finish_reason;
    }
  }
  assert.deepEqual(Object.keys(ends), Object.keys(texts), 'every choice ends');
  return { texts, ends, usage };
}

function checkCall(call, names) {
  assert.equal(call.type, 'function');
  assert.ok(call.id);
  assert.ok(names.includes(call.function.name), call.function.name);
  const given = JSON.parse(call.function.arguments);
  const [key, values] =
    call.function.name === 'get_weather' ? ['city', cities] : ['zone', ['CET', 'UTC']];
  assert.deepEqual(Object.keys(given), [key]);
  assert.ok(values.includes(given[key]), call.function.arguments);
}

/** The state in which a job ends within a few seconds. */
async function over(job) {
  for (let n = 0; n < 100; n += 1) {
    const { state } = await client.get(`/jobs/${job}`);
    if (state !== 'queued' && state !== 'leased') return state;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail('the job goes on');
}

const long = {
  messages: [{ role: 'user', content: 'Tell a very long story.' }],
  max_tokens: 1024,
  temperature: 1,
  // The starter model's two ends of a text; without them the story goes on until somebody stops it.
  logit_bias: { 0: -100, 2: -100 },
};

/** Why a case does not apply. */
class Skipped extends Error {}

/** A model that makes pictures, if there is one. */
async function findPainter() {
  const named = process.env.NEURINO_IMAGE_MODEL;
  if (named) return client.models.retrieve(named);
  for (let tries = 0; tries < 60; tries += 1) {
    const listed = (await client.models.list()).data.filter((one) => one.kind === 'image');
    const served = listed.find((one) => one.nodes > 0);
    if (served || listed.length === 0) return served;
    // Its files may just be unpacked.
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return undefined;
}

let found;

/** The model that makes pictures, with what suits it. */
async function painter() {
  found ??= findPainter();
  const model = await found;
  if (!model) throw new Skipped('nobody serves a model that makes pictures');
  assert.equal(model.kind, 'image');
  return model;
}

async function paint(changes = {}) {
  const usual = { model: (await painter()).id, prompt: 'a red square', seed: 7, steps: 2 };
  return client.images.generate({ ...usual, ...changes }, { timeout: 600_000 });
}

/** The bytes of a picture of the model's usual size, or of another one. */
async function pngOf(picture, size) {
  const { width, height } = (await painter()).image;
  const bytes = Buffer.from(picture.b64_json, 'base64');
  assert.equal(bytes.toString('latin1', 0, 8), '\x89PNG\r\n\x1a\n');
  assert.equal(`${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`, size ?? `${width}x${height}`);
  return bytes.toString('base64');
}

const cases = {
  async models() {
    const known = [];
    for await (const one of client.models.list()) known.push(one.id);
    assert.ok(known.includes(model));
    assert.equal((await client.models.retrieve(model)).id, model);
    await refused(OpenAI.NotFoundError, () => client.models.retrieve('nobody-has-this'), {
      code: 'model_not_found',
    });
  },

  async chat() {
    const answer = await chat();
    assert.equal(answer.object, 'chat.completion');
    assert.ok(answer.choices[0].message.content.trim());
    assert.ok(['stop', 'length'].includes(answer.choices[0].finish_reason));
    assert.ok(answer.id.includes(answer._request_id));
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
    assert.ok(completion_tokens > 0 && completion_tokens <= 24);
    assert.equal(total_tokens, prompt_tokens + completion_tokens);
  },

  async stream() {
    const whole = await chat();
    const options = { stream: true, stream_options: { include_usage: true } };
    const { texts, ends, usage } = await read(await chat(options));
    assert.deepEqual(texts, { 0: whole.choices[0].message.content });
    assert.deepEqual(ends, { 0: whole.choices[0].finish_reason });
    assert.deepEqual(usage, whole.usage);
  },

  async stream_helper() {
    const whole = await chat();
    let said = '';
    const events = client.chat.completions.stream(greedy);
    events.on('content', (delta) => {
      said += delta;
    });
    const final = await events.finalChatCompletion();
    assert.equal(said, whole.choices[0].message.content);
    assert.equal(final.choices[0].message.content, said);
  },

  async stop() {
    const whole = (await chat()).choices[0].message.content;
    const word = whole.trim().split(/\s+/)[2];
    for (const stop of [word, ['\u2603 never said', word]]) {
      const [choice] = (await chat({ stop })).choices;
      assert.equal(choice.message.content, whole.slice(0, whole.indexOf(word)));
      assert.equal(choice.finish_reason, 'stop');
    }
  },

  async several_answers() {
    const asked = { n: 3, temperature: 1, seed: 11, max_tokens: 12 };
    const answer = await chat(asked);
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2]);
    const texts = { ...answer.choices.map((choice) => choice.message.content) };
    assert.deepEqual((await read(await chat({ ...asked, stream: true }))).texts, texts);
  },

  async seed() {
    const said = async (seed) => (await chat({ temperature: 1, seed })).choices[0].message.content;
    assert.equal(await said(7), await said(7));
    assert.ok(new Set([await said(7), await said(8), await said(9)]).size > 1);
  },

  async logprobs() {
    const answer = await chat({ logprobs: true, top_logprobs: 2 });
    const rated = answer.choices[0].logprobs.content;
    assert.ok(rated.length > 0 && rated.length <= answer.usage.completion_tokens);
    for (const token of rated) {
      assert.ok(token.logprob <= 0);
      assert.equal(token.top_logprobs.length, 2);
      assert.equal(token.top_logprobs[0].token, token.token);
    }
    const streamed = [];
    for await (const chunk of await chat({ logprobs: true, top_logprobs: 2, stream: true })) {
      for (const piece of chunk.choices) streamed.push(...(piece.logprobs?.content ?? []));
    }
    assert.deepEqual(streamed, rated);
  },

  async tools() {
    const answer = await chat({ ...tools, tool_choice: 'required' });
    assert.equal(answer.choices[0].finish_reason, 'tool_calls');
    const calls = answer.choices[0].message.tool_calls;
    for (const call of calls) checkCall(call, ['get_weather', 'get_time']);
    const named = { type: 'function', function: { name: 'get_time' } };
    const [time] = (await chat({ ...tools, tool_choice: named })).choices[0].message.tool_calls;
    checkCall(time, ['get_time']);
    const none = await chat({ ...tools, tool_choice: 'none', max_tokens: 32 });
    assert.ok(none.choices[0].message.content && !none.choices[0].message.tool_calls);
    const auto = await chat({ ...tools, tool_choice: 'auto' });
    for (const call of auto.choices[0].message.tool_calls ?? []) {
      checkCall(call, ['get_weather', 'get_time']);
    }
  },

  async tools_streamed() {
    const asked = { ...tools, tool_choice: 'required' };
    const functions = (choice) => choice.message.tool_calls.map((call) => call.function.arguments);
    const whole = functions((await chat(asked)).choices[0]);
    const events = client.chat.completions.stream({ ...greedy, ...asked });
    assert.deepEqual(functions((await events.finalChatCompletion()).choices[0]), whole);
  },

  async tool_round_trip() {
    const named = { type: 'function', function: { name: 'get_weather' } };
    const { message } = (await chat({ ...tools, tool_choice: named })).choices[0];
    const told = {
      role: 'tool',
      tool_call_id: message.tool_calls[0].id,
      content: '{"weather": "sunny, 21 degrees"}',
    };
    const messages = [...tools.messages, message, told];
    const answer = await chat({ ...tools, messages, tool_choice: 'none', max_tokens: 32 });
    assert.ok(answer.choices[0].message.content.trim());
  },

  async json_schema() {
    const schema = {
      type: 'object',
      properties: {
        colour: { type: 'string', enum: ['red', 'green', 'blue'] },
        warm: { type: 'boolean' },
      },
      required: ['colour', 'warm'],
      additionalProperties: false,
    };
    const json_schema = { name: 'colour', strict: true, schema };
    const response_format = { type: 'json_schema', json_schema };
    const answer = await client.chat.completions.parse({
      ...greedy,
      response_format,
      max_tokens: 64,
    });
    const value = answer.choices[0].message.parsed ?? JSON.parse(answer.choices[0].message.content);
    assert.deepEqual(Object.keys(value).sort(), ['colour', 'warm']);
    assert.ok(['red', 'green', 'blue'].includes(value.colour));
    assert.equal(typeof value.warm, 'boolean');
  },

  async errors() {
    const stranger = new OpenAI({ baseURL, apiKey: `nrn-${'0'.repeat(64)}`, maxRetries: 0 });
    const ask = () => stranger.chat.completions.create(greedy);
    await refused(OpenAI.AuthenticationError, ask, { status: 401, code: 'invalid_api_key' });
    const unknown = { code: 'model_not_found', type: 'invalid_request_error' };
    await refused(OpenAI.NotFoundError, () => chat({ model: 'nobody-has-this' }), unknown);
    for (const [param, changes] of [
      ['temperature', { temperature: 3 }],
      ['max_tokens', { max_tokens: 0 }],
      ['tool_choice', { tool_choice: 'required' }],
      ['functions', { functions: [{ name: 'f', parameters: {} }] }],
      ['messages', { messages: [] }],
      ['stop', { stop: ['1', '2', '3', '4', '5'] }],
      ['logit_bias', { logit_bias: { 999999: 1 } }],
      [
        'tools[0].function.parameters.type',
        { tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'text' } } }] },
      ],
    ]) {
      const error = await refused(OpenAI.BadRequestError, () => chat(changes), { param });
      assert.equal(error.type, 'invalid_request_error');
    }
    const messages = [{ role: 'user', content: 'word '.repeat(9000) }];
    for (const stream of [false, true]) {
      await refused(OpenAI.BadRequestError, () => chat({ messages, stream }), {
        code: 'context_length_exceeded',
      });
    }
    const huge = [{ role: 'user', content: 'word '.repeat(400_000) }];
    await refused(OpenAI.APIError, () => chat({ messages: huge }), { status: 413 });
  },

  async closed_stream() {
    const { data, request_id } = await client.chat.completions
      .create({ ...greedy, ...long, stream: true })
      .withResponse();
    let chunks = 0;
    for await (const chunk of data) {
      chunks += chunk.choices.length;
      // Leaving the loop closes the connection.
      if (chunks === 3) break;
    }
    assert.equal(await over(request_id), 'cancelled');
  },

  async timeout() {
    const hasty = () =>
      client.chat.completions.create({ ...greedy, ...long }, { timeout: 60, maxRetries: 0 });
    await refused(OpenAI.APIConnectionTimeoutError, hasty);
    assert.ok((await chat({ max_tokens: 4 })).choices[0].message.content);
  },

  async image_answer() {
    const answer = await paint({ n: 2 });
    assert.equal(answer.output_format, 'png');
    const [first, second] = await Promise.all(answer.data.map((picture) => pngOf(picture)));
    assert.notEqual(first, second);
    assert.equal(await pngOf((await paint()).data[0]), first, 'one seed makes one picture');
    assert.equal(await pngOf((await paint({ seed: 8 })).data[0]), second, 'the seeds are in a row');
  },

  async image_url() {
    const { url } = (await paint({ response_format: 'url' })).data[0];
    const shown = await fetch(url);
    assert.equal(shown.headers.get('content-type'), 'image/png');
    const bytes = Buffer.from(await shown.arrayBuffer()).toString('base64');
    assert.equal(bytes, await pngOf((await paint()).data[0]));
    assert.equal((await fetch(url.replace('.png', '0.png'))).status, 404);
  },

  async image_stream() {
    const events = [];
    for await (const event of await paint({ steps: 4, stream: true, partial_images: 2 })) {
      events.push(event);
    }
    const last = events.pop();
    assert.equal(last.type, 'image_generation.completed');
    assert.ok(events.length <= 2);
    for (const [at, event] of events.entries()) {
      assert.equal(event.type, 'image_generation.partial_image');
      assert.equal(event.partial_image_index, at);
      await pngOf(event, event.size);
    }
    assert.equal(await pngOf(last), await pngOf((await paint({ steps: 4 })).data[0]));
  },

  async image_errors() {
    for (const [param, changes] of [
      ['n', { n: 9 }],
      ['size', { size: '123x64' }],
      ['style', { style: 'vivid' }],
      ['steps', { steps: 36 }],
      ['model', { model }],
    ]) {
      await refused(OpenAI.BadRequestError, () => paint(changes), { param });
    }
    const id = (await painter()).id;
    await refused(OpenAI.BadRequestError, () => chat({ model: id }), { param: 'model' });
  },

  async image_closed() {
    const { data, request_id } = await client.images
      .generate({
        model: (await painter()).id,
        prompt: 'a red square',
        steps: 35,
        stream: true,
        partial_images: 3,
      })
      .withResponse();
    data.controller.abort();
    assert.equal(await over(request_id), 'cancelled');
  },
};

const wanted = process.argv.slice(2);
let passed = 0;
let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const started = Date.now();
  let verdict = 'ok';
  try {
    await run();
    passed += 1;
  } catch (error) {
    if (error instanceof Skipped) {
      verdict = `skipped: ${error.message}`;
    } else {
      failed += 1;
      verdict = 'FAILED';
      console.error(error);
    }
  }
  console.log(`node ${name} ... ${verdict} in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
