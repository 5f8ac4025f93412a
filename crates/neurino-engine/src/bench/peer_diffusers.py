# Measures diffusers and transformers on random weights: one round for each line of input, which is the
# number of steps. With "compile" torch compiles denoiser and decoder, and each round measures both forms.
import json
import sys
import time

import diffusers
import torch
import transformers

options = json.loads(sys.argv[1])
device = "cuda" if options["gpu"] and torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device == "cuda" else torch.float32
torch.set_grad_enabled(False)
torch.manual_seed(0)
if device == "cpu":
    torch.set_num_threads(options["threads"])
torch.set_default_dtype(dtype)


def make(kind, config):
    with torch.device(device):
        return kind(config).eval() if isinstance(config, transformers.PretrainedConfig) else kind(**config).eval()


def random(*shape):
    return torch.randn(shape, device=device, dtype=dtype)


texts = [make(transformers.CLIPTextModelWithProjection, transformers.CLIPTextConfig(**c)) for c in options["texts"]]
t5 = make(transformers.T5EncoderModel, transformers.T5Config(**options["t5"])) if "t5" in options else None
# Convolutions of cards are quickest with channels last.
layout = {"memory_format": torch.channels_last} if device == "cuda" else {}
vae = make(diffusers.AutoencoderKL, options["vae"]).to(**layout)
height, width = options["height"] // options["factor"], options["width"] // options["factor"]
latents = random(1, options["vae"]["latent_channels"], height, width)
if "unet" in options:
    network = make(diffusers.UNet2DConditionModel, options["unet"]).to(**layout)
    sample = random(2, options["unet"]["in_channels"], height, width)
    context = random(2, options["tokens"], options["unet"]["cross_attention_dim"])
    extra = {}
    if "addition_embed_type" in options["unet"]:
        pooled = options["unet"]["projection_class_embeddings_input_dim"] - 6 * options["unet"]["addition_time_embed_dim"]
        extra["added_cond_kwargs"] = {"text_embeds": random(2, pooled), "time_ids": random(2, 6)}

    def denoise(network):
        return network(sample, 500, encoder_hidden_states=context, **extra).sample
else:
    config = options["flux"]
    network = make(diffusers.FluxTransformer2DModel, config)
    rows, columns = height // 2, width // 2
    tokens = random(1, rows * columns, config["in_channels"])
    states, pooled = random(1, 512, config["joint_attention_dim"]), random(1, config["pooled_projection_dim"])
    image_ids, text_ids = torch.zeros(rows * columns, 3, device=device), torch.zeros(512, 3, device=device)
    if tuple(map(int, diffusers.__version__.split(".")[:2])) < (0, 31):  # a batch of them, until then
        image_ids, text_ids = image_ids[None], text_ids[None]
    one = torch.ones(1, device=device, dtype=dtype)

    def denoise(network):
        return network(hidden_states=tokens, timestep=one, guidance=one, pooled_projections=pooled,
                       encoder_hidden_states=states, txt_ids=text_ids, img_ids=image_ids).sample


def read():
    for text in texts:
        ids = torch.randint(0, 400, (2 if t5 is None else 1, options["tokens"]), device=device)
        text(ids)
    if t5 is not None:
        t5(torch.randint(0, 400, (1, 512), device=device))


def timed(work):
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


name = f"{diffusers.__version__} with torch {torch.__version__}"
print(json.dumps({"version": name}), flush=True)

compiled, failure = None, None


def prepared():
    """Denoiser and decoder as torch compiles them, run until nothing is compiled any more."""
    mode = {"mode": "max-autotune"} if device == "cuda" else {}
    forms = torch.compile(network, **mode), torch.compile(vae.decode, **mode)
    for _ in range(3):
        denoise(forms[0])
        forms[1](latents)
    return forms


def measured(steps, network, decode):
    step_s = [timed(lambda: denoise(network)) for _ in range(steps)]
    return {"step_s": step_s, "decode_s": timed(lambda: decode(latents).sample)}


for line in sys.stdin:
    if options["compile"] and compiled is None and failure is None:
        try:
            compiled = prepared()
        except Exception as error:  # it needs a compiler of C, and a card that its Triton knows
            failure = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    answer = {"text_s": timed(read), **measured(int(line), network, vae.decode)}
    if compiled is not None:
        answer["compiled"] = {"text_s": answer["text_s"], **measured(int(line), *compiled)}
    elif failure is not None:
        answer["compiled"] = {"failure": failure}
    print(json.dumps(answer), flush=True)
