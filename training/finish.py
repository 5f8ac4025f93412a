"""A short second stage for the UNet: the colours of large areas come from the caption.

    python finish.py --minutes 12

At its noisiest, a picture of the SD 1.5 schedule still shows through: 0.068 of it, as much as the noise's own mean over 16x16 cells.
A network trained on plain noise reads the background's colour off that mean, and when pictures are made from noise alone, the
background follows the noise and not the words. So here the noise of late times has a random level of its own, and of its quarters and
sixteenths, which leaves nothing to read. Starts from the average weights of `train.py unet`, in half precision.
"""
import argparse
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor

import networks
import train

LEVELS = {1: 0.14, 2: 0.10, 4: 0.08}


# Captions that tell the ground or the hour; every second picture is of them.
TELLING = ["background", " on ", "night", "sunset", "stars", "snow", "roof"]


def batch_of(pool, rng, size, telling):
    at = rng.integers(0, len(pool.pictures), size)
    at[::2] = rng.choice(telling, len(at[::2]))
    pictures = torch.from_numpy(np.stack([pool.pictures[i] for i in at])).to(pool.device)
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1, pool.tokens[at].to(pool.device)


def noise_for(clean, t):
    noise = torch.randn_like(clean)
    late = ((t.float() - 400) / 600).clamp(0, 1)[:, None, None, None]
    for cells, strength in LEVELS.items():
        blocks = torch.randn(*clean.shape[:2], cells, cells, device=clean.device)
        noise += strength * late * F.interpolate(blocks, size=clean.shape[2:], mode="nearest")
    return noise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="of train.py")
    parser.add_argument("--out", type=pathlib.Path, help="where the finished unet.pt goes (runs/finished)")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out = args.out or args.runs / "finished"
    args.out.mkdir(exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pool = train.Pool(args.runs, device)
    unet, text = networks.build_unet(), networks.build_text_encoder(int(pool.tokens.max()) + 1)
    before = torch.load(args.runs / "unet.pt", map_location="cpu")
    unet.load_state_dict(before["average"]["unet"]), text.load_state_dict(before["average"]["text"])
    unet.set_attn_processor(AttnProcessor())
    unet.to(device), text.to(device)
    run = train.Run(args, "unet", {"unet": unet, "text": text}, args.rate)
    rng = np.random.default_rng(43 + run.step)
    torch.manual_seed(43 + run.step)
    empty = torch.full((networks.TOKENS,), int(pool.tokens[0, -1]))
    empty[0] = pool.tokens[0, 0]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float().to(device)
    snr = kept / (1 - kept)
    # What a late time tells of the picture is a small part of its noise: without more weight the words would be learnt last.
    weights = snr.clamp(max=5) / snr * (1 + 0.5 / snr.sqrt())
    captions = (args.runs / "captions.txt").read_text().split("\n")
    telling = np.array([i for i, c in enumerate(captions) if any(word in c for word in TELLING)])
    while run.done() < 1:
        pictures, tokens = batch_of(pool, rng, args.batch, telling)
        tokens[torch.rand(len(tokens)) < 0.1] = empty.to(device)
        clean = train.to_latents(pictures, pool.basis)
        # Evenly spread times, more of them where colours and shapes are decided.
        t = (((torch.arange(args.batch) + torch.rand(args.batch)) / args.batch) ** 0.55 * 1000).long().clamp(max=999).to(device)
        noise = noise_for(clean, t)
        a = kept[t][:, None, None, None]
        with torch.autocast(device, dtype=torch.bfloat16):
            guess = unet(a.sqrt() * clean + (1 - a).sqrt() * noise, t, text(tokens).last_hidden_state).sample
        run.take(((guess.float() - noise).square().mean((1, 2, 3)) * weights[t]).mean() / weights.mean())
    run.save()


if __name__ == "__main__":
    main()
