# Measures llama.cpp through its Python package cyllama: one round for each line of input.
import json
import sys
import time

import cyllama.llama.llama_cpp as cpp

options = json.loads(sys.argv[1])
prompt, new, batches = options["prompt"], options["new"], options["batches"]
cpp.disable_logging()
cpp.ggml_backend_load_all()
cpp.llama_backend_init()
model_params = cpp.LlamaModelParams()
model_params.n_gpu_layers = options["gpu_layers"]
model = cpp.LlamaModel(options["file"], model_params)


def context(sequences):
    params = cpp.LlamaContextParams()
    params.n_ctx = sequences * ((prompt + new + 255) // 256 * 256)
    params.n_seq_max = sequences
    params.n_batch = max(prompt, sequences)
    params.n_ubatch = min(params.n_batch, 512)
    params.n_threads = params.n_threads_batch = options["threads"]
    params.no_perf = True
    return cpp.LlamaContext(model, params)


def token(n):
    return (n * 2654435761) % 4294967296 % options["vocab"]


def read(ctx, batch, sequence):
    batch.reset()
    for position in range(prompt):
        batch.add(token(position), position, [sequence], position == prompt - 1)
    if ctx.decode(batch) != 0:
        raise RuntimeError("the prompt could not be read")
    ctx.synchronize()


alone = context(1)
prompt_batch = cpp.LlamaBatch(n_tokens=prompt, embd=0, n_seq_max=1)
decoders = []
for sequences in batches:
    ctx = context(sequences)
    for sequence in range(sequences):
        read(ctx, prompt_batch, sequence)
    decoders.append((sequences, ctx, cpp.LlamaBatch(n_tokens=sequences, embd=0, n_seq_max=1)))
print(json.dumps({"version": cpp.ggml_version()}), flush=True)

for _ in sys.stdin:
    alone.kv_cache_clear()
    started = time.perf_counter()
    read(alone, prompt_batch, 0)
    prefill_s = time.perf_counter() - started
    decode_s = []
    for sequences, ctx, batch in decoders:
        for sequence in range(sequences):
            ctx.memory_seq_rm(sequence, prompt, -1)
        started = time.perf_counter()
        for step in range(new):
            batch.reset()
            for sequence in range(sequences):
                batch.add(token(step + sequence), prompt + step, [sequence], True)
            if ctx.decode(batch) != 0:
                raise RuntimeError("a token could not be computed")
            ctx.synchronize()
        decode_s.append(time.perf_counter() - started)
    print(json.dumps({"prefill_s": prefill_s, "decode_s": decode_s}), flush=True)
