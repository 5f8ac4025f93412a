# Measures Hugging Face transformers on random weights: one round for each line of input.
import json
import sys
import time

import torch
import transformers

options = json.loads(sys.argv[1])
prompt, new, batches = options["prompt"], options["new"], options["batches"]
device = "cuda" if options["gpu_layers"] and torch.cuda.is_available() else "cpu"
torch.set_grad_enabled(False)
torch.manual_seed(0)
if device == "cpu":
    torch.set_num_threads(options["threads"])
torch.set_default_dtype(torch.float16 if device == "cuda" else torch.float32)
config_type = getattr(transformers, options["arch"] + "Config")
model_type = getattr(transformers, options["arch"] + "ForCausalLM")
with torch.device(device):
    model = model_type(config_type(attn_implementation="sdpa", **options["config"])).eval()


def wait():
    if device == "cuda":
        torch.cuda.synchronize()


def tokens(rows, columns):
    return torch.randint(0, options["vocab"], (rows, columns), device=device)


def read(sequences):
    return model(tokens(sequences, prompt), use_cache=True, logits_to_keep=1)


def drop_after_prompt(cache):
    cache.crop(prompt)


decoders = [(sequences, read(sequences).past_key_values) for sequences in batches]
name = f"{transformers.__version__} with torch {torch.__version__}"
print(json.dumps({"version": name}), flush=True)

for _ in sys.stdin:
    wait()
    started = time.perf_counter()
    read(1).logits[:, -1].argmax(-1).tolist()
    prefill_s = time.perf_counter() - started
    decode_s = []
    for sequences, cache in decoders:
        drop_after_prompt(cache)
        latest = tokens(sequences, 1)
        wait()
        started = time.perf_counter()
        for _step in range(new):
            out = model(latest, past_key_values=cache, use_cache=True)
            latest = out.logits[:, -1:].argmax(-1)
        wait()
        decode_s.append(time.perf_counter() - started)
    print(json.dumps({"prefill_s": prefill_s, "decode_s": decode_s}), flush=True)
