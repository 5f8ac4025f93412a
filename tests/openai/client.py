"""The official Python client against a running gateway: every case by name, then a tally.

Reads NEURINO_BASE_URL, NEURINO_API_KEY, NEURINO_MODEL, and NEURINO_IMAGE_MODEL; without the last the
cases of pictures take what the gateway has, and are skipped if it has none. Arguments choose cases by
name. Ends with the line `N passed, N failed`, and with status 1 if one failed.
"""

import asyncio
import base64
import functools
import json
import os
import struct
import sys
import time
import traceback
import urllib.error
import urllib.request

import openai
from openai import AsyncOpenAI, OpenAI

BASE_URL = os.environ["NEURINO_BASE_URL"]
API_KEY = os.environ["NEURINO_API_KEY"]
MODEL = os.environ["NEURINO_MODEL"]

client = OpenAI(base_url=BASE_URL, api_key=API_KEY, timeout=120, max_retries=0)

QUESTION = [{"role": "user", "content": "Name three colours of the rainbow."}]
GREEDY = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is like in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Says what time it is in a zone.",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["CET", "UTC"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather like in Paris?"}]

CASES = []


def case(function):
    CASES.append(function)
    return function


def chat(**changes):
    return client.chat.completions.create(**{**GREEDY, **changes})


def expect(kind, call, **fields):
    """Calls and returns the error, which must be of this very class and have these fields."""
    try:
        call()
    except openai.APIError as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
        for name, value in fields.items():
            assert getattr(error, name) == value, f"{name}: {getattr(error, name)!r} of {error}"
        return error
    raise AssertionError(f"no error, but {kind.__name__} was expected")


def text_of(stream):
    """What a stream says, by choice; checks what holds of every stream."""
    texts, roles, ends, usage = {}, set(), {}, None
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk" and chunk.model == MODEL
        if chunk.usage is not None:
            assert usage is None and chunk.choices == []
            usage = chunk.usage
        for choice in chunk.choices:
            if choice.index not in roles:
                assert choice.delta.role == "assistant", "the first chunk of a choice has the role"
                roles.add(choice.index)
            assert choice.index not in ends, "nothing follows the end of a choice"
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason is not None:
                ends[choice.index] = choice.finish_reason
    assert set(ends) == roles, "every choice ends"
    return texts, ends, usage


@case
def models():
    assert MODEL in [model.id for model in client.models.list()]
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object) == (MODEL, "model")
    expect(openai.NotFoundError, lambda: client.models.retrieve("nobody-has-this"), code="model_not_found")


@case
def chat_answer():
    answer = chat(messages=[{"role": "system", "content": "Be brief."}, *QUESTION])
    assert answer.object == "chat.completion" and answer.model == MODEL
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.choices[0].logprobs is None and answer.choices[0].message.tool_calls is None
    assert answer.system_fingerprint.startswith("fp_")
    assert answer._request_id and answer._request_id in answer.id
    usage = answer.usage
    assert usage.prompt_tokens > 5 and 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@case
def content_in_parts():
    parts = [{"type": "text", "text": "Name three colours "}, {"type": "text", "text": "of the rainbow."}]
    whole = chat().choices[0].message.content
    assert chat(messages=[{"role": "user", "content": parts}]).choices[0].message.content == whole


@case
def token_limits():
    for limit in ({"max_tokens": 3}, {"max_tokens": None, "max_completion_tokens": 3}):
        answer = chat(**limit)
        assert answer.usage.completion_tokens <= 3
        assert answer.choices[0].finish_reason == "length"


@case
def stream():
    whole = chat()
    texts, ends, usage = text_of(chat(stream=True, stream_options={"include_usage": True}))
    assert texts == {0: whole.choices[0].message.content}
    assert ends == {0: whole.choices[0].finish_reason}
    assert usage == whole.usage
    texts, _, usage = text_of(chat(stream=True))
    assert texts == {0: whole.choices[0].message.content} and usage is None


@case
def stream_helper():
    # The helper takes an answer that was cut off for an error, so this one has an end.
    ended = {**GREEDY, "stop": chat().choices[0].message.content.split()[2]}
    whole = client.chat.completions.create(**ended)
    with client.chat.completions.stream(**ended) as events:
        said = "".join(event.delta for event in events if event.type == "content.delta")
        final = events.get_final_completion()
    assert said == final.choices[0].message.content == whole.choices[0].message.content


@case
def stop():
    whole = chat().choices[0].message.content
    word = whole.split()[2]
    for given in (word, ["\u2603 never said", word]):
        answer = chat(stop=given)
        assert answer.choices[0].message.content == whole[: whole.index(word)]
        assert answer.choices[0].finish_reason == "stop"
        texts, ends, _ = text_of(chat(stop=given, stream=True))
        assert texts == {0: whole[: whole.index(word)]} and ends == {0: "stop"}


@case
def several_answers():
    asked = {"n": 3, "temperature": 1, "seed": 11, "max_tokens": 12}
    answer = chat(**asked)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = {choice.index: choice.message.content for choice in answer.choices}
    assert len(set(texts.values())) > 1, "each has random numbers of its own"
    assert 3 <= answer.usage.completion_tokens <= 36
    alone = chat(**{**asked, "n": 1})
    assert alone.usage.prompt_tokens == answer.usage.prompt_tokens, "the prompt counts once"
    assert alone.choices[0].message.content == texts[0]
    streamed, ends, _ = text_of(chat(**asked, stream=True))
    assert streamed == texts and len(ends) == 3


@case
def seed():
    def said(number):
        return chat(temperature=1, seed=number).choices[0].message.content

    assert said(7) == said(7)
    assert len({said(number) for number in (7, 8, 9)}) > 1
    assert said(-3) == said(-3)


@case
def sampling_parameters():
    answer = chat(
        temperature=0.7,
        top_p=0.9,
        seed=1,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"50": -100, "51": 5},
        user="somebody",
        metadata={"purpose": "test"},
        store=False,
        extra_body={"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    assert answer.choices[0].message.content
    # Taking the likeliest alone is the same as taking the best.
    likeliest = chat(temperature=1, seed=5, extra_body={"top_k": 1})
    assert likeliest.choices[0].message.content == chat().choices[0].message.content


@case
def logprobs():
    plain = chat().choices[0].message.content
    answer = chat(logprobs=True, top_logprobs=3)
    choice = answer.choices[0]
    assert choice.message.content == plain, "asking for them changes nothing"
    rated = choice.logprobs.content
    assert 0 < len(rated) <= answer.usage.completion_tokens
    for token in rated:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        best = max(token.top_logprobs, key=lambda rival: rival.logprob)
        assert token.top_logprobs[0] == best
        assert (token.token, token.logprob) == (best.token, best.logprob), "greedy takes the best"
        assert bytes(token.bytes).decode(errors="replace") == token.token
    spelled = b"".join(bytes(token.bytes) for token in rated).decode(errors="replace")
    assert spelled.startswith(plain)
    streamed = []
    for chunk in chat(logprobs=True, top_logprobs=3, stream=True):
        for piece in chunk.choices:
            streamed += piece.logprobs.content if piece.logprobs else []
    assert streamed == rated
    assert all(token.top_logprobs == [] for token in chat(logprobs=True).choices[0].logprobs.content)


def check_call(call, names):
    assert call.type == "function" and call.id
    assert call.function.name in names
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_weather":
        assert set(arguments) == {"city"} and arguments["city"] in ("Paris", "Rome"), arguments
    else:
        assert set(arguments) == {"zone"} and arguments["zone"] in ("CET", "UTC"), arguments


TOOLS = {"messages": ASK_WEATHER, "tools": [WEATHER, CLOCK], "max_tokens": 160}


@case
def tools_required():
    answer = chat(**TOOLS, tool_choice="required")
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert len(choice.message.tool_calls) >= 1
    for call in choice.message.tool_calls:
        check_call(call, ("get_weather", "get_time"))
    single = chat(**TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert len(single.choices[0].message.tool_calls) == 1


@case
def tools_named():
    for name in ("get_time", "get_weather"):
        answer = chat(**TOOLS, tool_choice={"type": "function", "function": {"name": name}})
        (call,) = answer.choices[0].message.tool_calls
        check_call(call, (name,))


@case
def tools_auto_and_none():
    answer = chat(**TOOLS, tool_choice="auto")
    for call in answer.choices[0].message.tool_calls or []:
        check_call(call, ("get_weather", "get_time"))
    called = bool(answer.choices[0].message.tool_calls)
    assert called == (answer.choices[0].finish_reason == "tool_calls")
    answer = chat(**{**TOOLS, "max_tokens": 32}, tool_choice="none")
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


@case
def tools_streamed():
    asked = {**TOOLS, "tool_choice": "required"}
    whole = chat(**asked).choices[0].message.tool_calls
    calls, end = {}, None
    for chunk in chat(**asked, stream=True):
        for choice in chunk.choices:
            end = choice.finish_reason or end
            for piece in choice.delta.tool_calls or []:
                if piece.index not in calls:
                    assert piece.id and piece.type == "function" and piece.function.name
                    calls[piece.index] = [piece.function.name, ""]
                calls[piece.index][1] += piece.function.arguments or ""
    assert end == "tool_calls"
    assert [tuple(calls[index]) for index in sorted(calls)] == [
        (call.function.name, call.function.arguments) for call in whole
    ]
    with client.chat.completions.stream(**{**GREEDY, **asked}) as events:
        final = events.get_final_completion().choices[0].message.tool_calls
    assert [call.function.arguments for call in final] == [call.function.arguments for call in whole]


@case
def tool_round_trip():
    first = chat(**TOOLS, tool_choice={"type": "function", "function": {"name": "get_weather"}})
    message = first.choices[0].message
    told = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": '{"weather": "sunny, 21 degrees"}'}
    short = {**TOOLS, "tool_choice": "none", "max_tokens": 32}
    answer = chat(**{**short, "messages": [*ASK_WEATHER, message, told]})
    assert answer.choices[0].message.content.strip()
    assert answer.usage.prompt_tokens > chat(**short).usage.prompt_tokens + 10


@case
def json_schema():
    schema = {
        "type": "object",
        "properties": {
            "colour": {"type": "string", "enum": ["red", "green", "blue"]},
            "warm": {"type": "boolean"},
        },
        "required": ["colour", "warm"],
        "additionalProperties": False,
    }
    named = {"name": "colour", "strict": True, "schema": schema}
    asked = {"response_format": {"type": "json_schema", "json_schema": named}, "max_tokens": 64}
    answer = chat(**asked).choices[0]
    assert answer.finish_reason == "stop"
    value = json.loads(answer.message.content)
    assert set(value) == {"colour", "warm"}
    assert value["colour"] in ("red", "green", "blue") and isinstance(value["warm"], bool)
    texts, ends, _ = text_of(chat(**asked, stream=True))
    assert texts == {0: answer.message.content} and ends == {0: "stop"}


@case
def json_parsed():
    from typing import Literal

    from pydantic import BaseModel

    class Colour(BaseModel):
        colour: Literal["red", "green", "blue"]
        warm: bool

    answer = client.chat.completions.parse(**{**GREEDY, "max_tokens": 64}, response_format=Colour)
    assert isinstance(answer.choices[0].message.parsed, Colour)


@case
def json_object():
    messages = [{"role": "user", "content": "Answer in JSON: an object with the key a and the value 1."}]
    answer = chat(messages=messages, response_format={"type": "json_object"}, max_tokens=48).choices[0]
    assert answer.message.content.lstrip().startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)


@case
def side_by_side():
    questions = ["Why is the sky blue?", "Name a fish.", "What is a tree?", "Count to five."]

    async def ask():
        async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, timeout=120, max_retries=0) as several:

            async def one(question):
                said = ""
                messages = [{"role": "user", "content": question}]
                async for chunk in await several.chat.completions.create(
                    **{**GREEDY, "messages": messages, "stream": True}
                ):
                    said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
                return said

            return await asyncio.gather(*(one(question) for question in questions))

    together = asyncio.run(ask())
    alone = [
        chat(messages=[{"role": "user", "content": question}]).choices[0].message.content
        for question in questions
    ]
    assert together == alone, "nobody's answer depends on the others"


@case
def wrong_key():
    for key in ("nrn-" + "0" * 64, "sk-nonsense"):
        stranger = OpenAI(base_url=BASE_URL, api_key=key, max_retries=0)
        call = lambda: stranger.chat.completions.create(**GREEDY)  # noqa: E731
        error = expect(openai.AuthenticationError, call, status_code=401, code="invalid_api_key")
        assert error.request_id


@case
def unknown_model():
    for streaming in (False, True):
        call = lambda: chat(model="nobody-has-this", stream=streaming)  # noqa: B023, E731
        expect(openai.NotFoundError, call, code="model_not_found", type="invalid_request_error")


@case
def bad_parameters():
    refused = {
        "temperature": {"temperature": 3},
        "max_tokens": {"max_tokens": 0},
        "n": {"n": 1000},
        "top_logprobs": {"top_logprobs": 2},
        "seed": {"extra_body": {"seed": "x"}},
        "response_format.type": {"extra_body": {"response_format": {"type": "xml"}}},
        "tool_choice": {"tool_choice": "required"},
        "modalities": {"modalities": ["text", "audio"]},
        "functions": {"functions": [{"name": "f", "parameters": {}}]},
        "messages": {"messages": []},
        "stop": {"stop": ["1", "2", "3", "4", "5"]},
        "logit_bias": {"logit_bias": {"999999": 1}},
        "tools[0].function.parameters.type": {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "text"}}}]
        },
        "messages[0].role": {"messages": [{"role": "robot", "content": "x"}]},
        "messages[0].content": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}],
                }
            ]
        },
    }
    for param, changes in refused.items():
        call = lambda: chat(**changes)  # noqa: B023, E731
        error = expect(openai.BadRequestError, call, param=param, type="invalid_request_error")
        assert error.code and error.message


@case
def too_long():
    prompt = [{"role": "user", "content": "word " * 9000}]
    for streaming in (False, True):
        call = lambda: chat(messages=prompt, stream=streaming)  # noqa: B023, E731
        expect(openai.BadRequestError, call, code="context_length_exceeded")
    huge = [{"role": "user", "content": "word " * 400_000}]
    expect(openai.APIStatusError, lambda: chat(messages=huge), status_code=413)


@case
def raw_bodies():
    for kind, body, status in (
        ("application/json", "{", 400),
        ("application/json", "", 400),
        ("text/plain", json.dumps(GREEDY), 415),
    ):
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": kind}
        request = urllib.request.Request(f"{BASE_URL}/chat/completions", body.encode(), headers)
        try:
            urllib.request.urlopen(request)
        except urllib.error.HTTPError as answer:
            assert answer.code == status, f"{kind}: {answer.code}"
            assert json.load(answer)["error"]["type"] == "invalid_request_error"
            assert answer.headers["x-request-id"]
        else:
            raise AssertionError(f"{kind} was accepted")
    prompt = lambda: client.completions.create(model=MODEL, prompt="x")  # noqa: E731
    expect(openai.NotFoundError, prompt)


def wait_until_over(job):
    """The state in which a job ends within a few seconds."""
    for _ in range(100):
        state = client.get(f"/jobs/{job}", cast_to=object)["state"]
        if state not in ("queued", "leased"):
            return state
        time.sleep(0.1)
    raise AssertionError("the job goes on")


# The starter model's two ends of a text; without them the story goes on until somebody stops it.
ENDS = {"0": -100, "2": -100}
LONG = {
    "messages": [{"role": "user", "content": "Tell a very long story."}],
    "max_tokens": 1024,
    "temperature": 1,
    "logit_bias": ENDS,
}


@case
def closed_stream():
    raw = client.chat.completions.with_raw_response.create(**{**GREEDY, **LONG, "stream": True})
    stream, job = raw.parse(), raw.headers["x-request-id"]
    for _ in range(3):
        next(stream)
    stream.close()
    assert wait_until_over(job) == "cancelled"
    # And the machine is free for others.
    assert chat(max_tokens=4).choices[0].message.content


@case
def timeout():
    hasty = client.with_options(timeout=0.06)
    try:
        hasty.chat.completions.create(**{**GREEDY, **LONG})
    except openai.APITimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    started = time.monotonic()
    assert chat(max_tokens=4).choices[0].message.content
    assert time.monotonic() - started < 20, "the abandoned job does not hold up the next"


class Skipped(Exception):
    """Why a case does not apply."""


@functools.cache
def served_image_model():
    """A model that makes pictures, or none."""
    named = os.environ.get("NEURINO_IMAGE_MODEL")
    if named:
        return client.models.retrieve(named)
    for _ in range(60):
        listed = [model for model in client.models.list() if getattr(model, "kind", None) == "image"]
        for model in listed:
            if model.nodes > 0:
                return model
        if not listed:
            break
        # Its files may just be unpacked.
        time.sleep(1)
    return None


def image_model():
    """The model that makes pictures, and what suits it."""
    model = served_image_model()
    if model is None:
        raise Skipped("nobody serves a model that makes pictures; NEURINO_IMAGE_MODEL may name one")
    assert model.kind == "image", f"{model.id} makes no pictures"
    return model.id, model.image


def paint(seed=7, steps=2, extra=None, **changes):
    extra = {"seed": seed, "steps": steps, **(extra or {})}
    usual = {"model": image_model()[0], "prompt": "a red square", "timeout": 600}
    return client.images.generate(**{**usual, **changes}, extra_body=extra)


def check_png(data, width, height):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "a PNG file"
    assert struct.unpack(">II", data[16:24]) == (width, height)
    return data


def png_of(picture, width=None, height=None):
    usual = image_model()[1]
    data = base64.b64decode(picture.b64_json, validate=True)
    return check_png(data, width or usual["width"], height or usual["height"])


@case
def image_answer():
    usual = image_model()[1]
    answer = paint()
    assert abs(answer.created - time.time()) < 60
    assert len(answer.data) == 1 and answer.data[0].url is None
    assert (answer.output_format, answer.background) == ("png", "opaque")
    assert answer.size == f"{usual['width']}x{usual['height']}"
    assert answer._request_id
    first = png_of(answer.data[0])
    assert png_of(paint().data[0]) == first, "one seed makes one picture"
    assert png_of(paint(seed=8).data[0]) != first
    assert png_of(paint(prompt="a blue circle").data[0]) != first
    size = f"{usual['width']}x{usual['height'] - 8}"
    assert paint(size=size).size == size
    png_of(paint(size=size).data[0], height=usual["height"] - 8)
    assert paint(size="auto", extra={"guidance": 1, "negative_prompt": "rain"}).data


@case
def image_url():
    link = paint(response_format="url").data[0]
    assert link.b64_json is None
    usual = image_model()[1]
    with urllib.request.urlopen(link.url) as answer:
        assert answer.headers["content-type"] == "image/png"
        shown = check_png(answer.read(), usual["width"], usual["height"])
    assert shown == png_of(paint().data[0]), "the link shows the picture of the seed"
    try:
        urllib.request.urlopen(link.url.replace(".png", "0.png"))
    except urllib.error.HTTPError as answer:
        assert answer.code == 404
    else:
        raise AssertionError("a guessed link shows something")


@case
def image_several():
    pictures = [png_of(picture) for picture in paint(n=2).data]
    assert len(set(pictures)) == 2, "each has a seed of its own"
    assert pictures[1] == png_of(paint(seed=8).data[0]), "the seeds are in a row"


@case
def image_stream():
    events = list(paint(steps=4, stream=True, partial_images=2))
    *partial, last = events
    assert last.type == "image_generation.completed"
    assert [event.type for event in partial] == ["image_generation.partial_image"] * len(partial)
    # The picture may be there before a preview was sent.
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert len(partial) <= 2
    for event in partial:
        width, height = (int(side) for side in event.size.split("x"))
        png_of(event, width, height)
    assert png_of(last) == png_of(paint(steps=4).data[0]), "streamed or not, it is one picture"
    (only,) = paint(stream=True)
    assert only.type == "image_generation.completed"


@case
def image_async():
    async def both():
        settings = {"base_url": BASE_URL, "api_key": API_KEY, "timeout": 600, "max_retries": 0}
        async with AsyncOpenAI(**settings) as asynchronous:
            ask = lambda seed: asynchronous.images.generate(  # noqa: E731
                model=image_model()[0], prompt="a red square", extra_body={"seed": seed, "steps": 2}
            )
            return await asyncio.gather(ask(7), ask(8))

    first, second = asyncio.run(both())
    assert png_of(first.data[0]) == png_of(paint().data[0])
    assert png_of(first.data[0]) != png_of(second.data[0])


@case
def image_errors():
    model = image_model()[0]
    for param, changes in (
        ("n", {"n": 9}),
        ("size", {"size": "123x64"}),
        ("size", {"size": "large"}),
        ("quality", {"quality": "hd"}),
        ("background", {"background": "transparent"}),
        ("output_format", {"output_format": "webp"}),
        ("response_format", {"response_format": "jpeg"}),
        ("steps", {"steps": 0}),
        ("steps", {"steps": 36}),
        ("guidance", {"extra": {"guidance": 99}}),
        ("n", {"n": 2, "stream": True}),
        ("partial_images", {"partial_images": 2}),
        ("prompt", {"prompt": "word " * 9000}),
        # What writes text makes no pictures.
        ("model", {"model": MODEL}),
    ):
        error = expect(openai.BadRequestError, lambda: paint(**changes), param=param)  # noqa: B023
        assert error.type == "invalid_request_error"
    unknown = lambda: paint(model="nobody-has-this")  # noqa: E731
    expect(openai.NotFoundError, unknown, code="model_not_found", param="model")
    # And what makes pictures does not chat.
    for stream in (False, True):
        ask = lambda: chat(model=model, stream=stream)  # noqa: B023, E731
        assert "pictures" in str(expect(openai.BadRequestError, ask, param="model"))


@case
def image_closed():
    raw = client.images.with_raw_response.generate(
        model=image_model()[0],
        prompt="a red square",
        stream=True,
        partial_images=3,
        extra_body={"steps": 35, "seed": 7},
        timeout=600,
    )
    stream, job = raw.parse(), raw.headers["x-request-id"]
    stream.close()
    assert wait_until_over(job) == "cancelled"
    assert paint(steps=1).data, "the machine is free for others"


def main():
    wanted = sys.argv[1:]
    failed = skipped = 0
    cases = [one for one in CASES if not wanted or one.__name__ in wanted]
    for one in cases:
        started = time.monotonic()
        try:
            one()
            verdict = "ok"
        except Skipped as why:
            skipped += 1
            verdict = f"skipped: {why}"
        except Exception:
            failed += 1
            traceback.print_exc()
            verdict = "FAILED"
        print(f"python {one.__name__} ... {verdict} in {time.monotonic() - started:.1f} s", flush=True)
    print(f"{len(cases) - failed - skipped} passed, {failed} failed", flush=True)
    return 1 if failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
