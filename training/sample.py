"""Draws pictures from the finished file, with the product's schedule: a grid to look at.

    python sample.py neurino-toybox-64.safetensors --vocabulary bpe_simple_vocab_16e6.txt.gz --out grid.png
"""
import argparse
import pathlib

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from safetensors.torch import load_file

import networks as nets
import single_file
import train

BOS, EOS, VOCABULARY = 49406, 49407, 49408

PROMPTS = [
    "a red circle on a blue background", "a yellow star on a purple background", "a blue square", "a pink heart", "a green triangle", "a white ring on a black background",
    "a purple diamond, yellow background", "a black circle on a white background", "a smiling yellow face", "a sad blue face", "an orange cat", "a black cat on a pink background",
    "a red flower", "a yellow flower on a blue background", "a red mushroom", "an orange fish in the sea", "a green potion", "a blue gem",
    "a house with a red roof", "a house with a blue roof at night", "a green tree under a blue sky", "an autumn tree at sunset", "a pine tree in the snow", "a cherry tree",
    "mountains at sunset", "mountains at night", "a boat on the sea", "a boat with a red sail on the sea at sunset", "the sea at sunset", "a castle at night",
    "a castle with a red roof", "a city at night", "a palm tree on the beach", "a red hot air balloon in the sky", "a blue balloon at sunset", "a red car",
    "a yellow car on a road at night", "a purple planet with rings in space", "a blue planet", "a red rocket in space",
]


def load(path):
    """The three networks of a file, in full precision."""
    file = load_file(path)
    unet, vae, text = nets.build_unet(), nets.build_vae(), nets.build_text_encoder(VOCABULARY)
    whole = any(k.startswith("first_stage_model.encoder.") for k in file)
    parts = [k for k in vae.state_dict() if whole or not k.startswith(("encoder.", "quant_conv."))]
    states = single_file.unpack(file, unet.state_dict().keys(), parts)
    for network, state in zip((unet, vae, text), states):
        network.load_state_dict(state, strict=whole or network is not vae)
        network.eval()
    return unet, vae, text


def encode(text, tokenizer, prompts):
    rows = []
    for prompt in prompts:
        ids = [BOS, *tokenizer(prompt)][: nets.TOKENS - 1]
        rows.append(ids + [EOS] * (nets.TOKENS - len(ids)))
    return text(torch.tensor(rows)).last_hidden_state


@torch.no_grad()
def draw(networks, tokenizer, prompts, seed=1, steps=20, guidance=5.0, negative=""):
    """Pictures [n, 64, 64, 3], bytes."""
    unet, vae, text = networks
    states = encode(text, tokenizer, [negative] * len(prompts) + prompts)
    schedule = DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=2,
                                           algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    schedule.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(prompts), 4, nets.LATENT_SIDE, nets.LATENT_SIDE, generator=generator) * schedule.init_noise_sigma
    for t in schedule.timesteps:
        low, high = unet(schedule.scale_model_input(torch.cat([x, x]), t), t, states).sample.chunk(2)
        x = schedule.step(low + guidance * (high - low), t, x, generator=generator).prev_sample
    pictures = vae.decode(x / nets.LATENT_SCALE).sample
    return pictures.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()


def grid(pictures, columns=8, zoom=2):
    side = pictures.shape[1] + 4
    out = np.full(((len(pictures) + columns - 1) // columns * side, columns * side, 3), 128, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * side + 2, i % columns * side + 2
        out[y : y + side - 4, x : x + side - 4] = picture
    return Image.fromarray(out).resize((out.shape[1] * zoom, out.shape[0] * zoom), Image.Resampling.NEAREST)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--vocabulary", type=pathlib.Path, default=pathlib.Path("bpe_simple_vocab_16e6.txt.gz"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("grid.png"))
    parser.add_argument("--prompts", nargs="*")
    parser.add_argument("--negative", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train.Tokenizer(args.vocabulary)
    pictures = draw(load(args.file), tokenizer, args.prompts or PROMPTS, args.seed, args.steps, args.guidance, args.negative)
    grid(pictures).save(args.out)


if __name__ == "__main__":
    main()
