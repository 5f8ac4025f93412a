"""Trains the image starter model on pictures that `scenes` draws.

The latents are not learned: a picture's 4x4 patches are projected on the four principal components of such
patches, each scaled to unit variance. So the autoencoder and the diffusion network can be trained side by side:

    python train.py latents --pictures 24000     # draws the pictures, finds the components
    python train.py unet --minutes 70            # UNet and text encoder, on the latents
    python train.py decoder --minutes 15         # latents to pictures
    python train.py encoder --minutes 3          # pictures to latents (not needed to make pictures)

Every part can be stopped and goes on where it was when it is started again with more minutes.
"""
import argparse
import gzip
import json
import pathlib
import re
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import networks
import scenes

PATCH = scenes.SIZE // networks.LATENT_SIDE
BOS, EOS = 49406, 49407


# --- CLIP's tokens ----------------------------------------------------------------------------------------------------

class Tokenizer:
    """CLIP's byte pairs for plain lower-case English, from `bpe_simple_vocab_16e6.txt.gz`."""

    def __init__(self, path):
        merges = gzip.open(path).read().decode().split("\n")[1:49152 - 256 - 2 + 1]
        self.ranks = {tuple(m.split()): i for i, m in enumerate(merges)}
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
        words = letters + [c + "</w>" for c in letters] + ["".join(m.split()) for m in merges]
        self.ids = {w: i for i, w in enumerate(words)}

    def __call__(self, text):
        out = []
        for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower()):
            parts = [*word[:-1], word[-1] + "</w>"]
            while len(parts) > 1:
                pairs = [(self.ranks.get(p, 1 << 30), i) for i, p in enumerate(zip(parts, parts[1:]))]
                rank, i = min(pairs)
                if rank == 1 << 30:
                    break
                parts[i:i + 2] = [parts[i] + parts[i + 1]]
            out += [self.ids[p] for p in parts]
        return out


def token_rows(captions, tokenizer, known):
    rows = np.full((len(captions), networks.TOKENS), known[EOS], np.int16)
    for row, caption in zip(rows, captions):
        ids = [BOS, *tokenizer(caption)][:networks.TOKENS - 1]
        row[:len(ids)] = [known[i] for i in ids]
    return rows


# --- pictures and latents ---------------------------------------------------------------------------------------------

def patches(pictures):
    """[n, 3, h, w] -> [n, 48, h / 4, w / 4]"""
    return F.pixel_unshuffle(pictures, PATCH)


def to_latents(pictures, basis):
    x = patches(pictures) - basis["mean"][None, :, None, None]
    return torch.einsum("ck,nkhw->nchw", basis["down"], x)


def draw_latents(args):
    tokenizer = Tokenizer(args.vocabulary)
    rng = np.random.default_rng(args.seed)
    pictures = np.empty((args.pictures, scenes.SIZE, scenes.SIZE, 3), np.uint8)
    captions = []
    for i in range(args.pictures):
        pictures[i], caption = scenes.scene(rng)
        captions.append(caption)
        if i % 4000 == 3999:
            print(f"{i + 1} pictures", flush=True)
    x = torch.from_numpy(pictures[:3000]).permute(0, 3, 1, 2).float() / 127.5 - 1
    p = patches(x).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH * PATCH)
    mean = p.mean(0)
    values, vectors = torch.linalg.eigh((p - mean).T @ (p - mean) / len(p))
    top = vectors[:, -4:].flip(1)
    deviation = values[-4:].flip(0).sqrt()
    basis = {"mean": mean, "down": (top / deviation).T.contiguous(), "up": top * deviation}
    print("variance kept:", (values[-4:].sum() / values.sum()).item(), "deviations", deviation.tolist())
    used = sorted({i for c in captions for i in tokenizer(c)} | {BOS, EOS})
    known = {clip: row for row, clip in enumerate(used)}
    (args.out / "tokens.json").write_text(json.dumps(used))
    torch.save(basis, args.out / "basis.pt")
    np.save(args.out / "pictures.npy", pictures)
    np.save(args.out / "tokens.npy", token_rows(captions, tokenizer, known))
    (args.out / "captions.txt").write_text("\n".join(captions))
    print(len(used), "tokens")


class Pool:
    def __init__(self, out, device):
        self.pictures = np.load(out / "pictures.npy", mmap_mode="r")
        self.tokens = torch.from_numpy(np.load(out / "tokens.npy")).long()
        self.basis = {k: v.to(device) for k, v in torch.load(out / "basis.pt").items()}
        self.device = device

    def batch(self, rng, size):
        at = rng.integers(0, len(self.pictures), size)
        x = torch.from_numpy(np.stack([self.pictures[i] for i in at])).to(self.device)
        return x.permute(0, 3, 1, 2).float() / 127.5 - 1, self.tokens[at].to(self.device)


# --- training ---------------------------------------------------------------------------------------------------------

class Run:
    """Steps for so many minutes of this process's life, with a cosine rate, an average of the weights and restarts."""

    def __init__(self, args, name, modules, rate):
        self.args, self.path, self.modules, self.rate = args, args.out / f"{name}.pt", modules, rate
        self.parameters = [p for m in modules.values() for p in m.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
        self.average = {k: {n: v.detach().clone() for n, v in m.state_dict().items()} for k, m in modules.items()}
        self.step, spent = 0, 0.0
        if self.path.exists():
            saved = torch.load(self.path)
            for key, module in modules.items():
                module.load_state_dict(saved["modules"][key])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.average, self.step, spent = saved["average"], saved["step"], saved["spent"]
        self.begin, self.saved_at, self.told_at, self.told_step = time.time() - spent, time.time(), time.time(), self.step
        self.losses = []

    def done(self):
        return (time.time() - self.begin) / (60 * self.args.minutes)

    def take(self, loss):
        done = self.done()
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * min(1, (self.step + 1) / 100) * (0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * min(1, done))))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        self.losses.append(loss.item())
        keep = min(0.998, self.step / (self.step + 20))
        with torch.no_grad():
            for key, module in self.modules.items():
                for name, value in module.state_dict().items():
                    if value.is_floating_point():
                        self.average[key][name].lerp_(value, 1 - keep)
        now = time.time()
        if now - self.told_at > 30:
            rate = (self.step - self.told_step) / (now - self.told_at)
            print(f"{self.step} steps ({rate:.2f}/s), {done:.0%}, loss {np.mean(self.losses):.4f}", flush=True)
            self.told_at, self.told_step, self.losses = now, self.step, []
        if now - self.saved_at > 180:
            self.save()

    def save(self):
        state = {"modules": {k: m.state_dict() for k, m in self.modules.items()}, "average": self.average,
                 "optimiser": self.optimiser.state_dict(), "step": self.step, "spent": time.time() - self.begin}
        torch.save(state, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").rename(self.path)
        self.saved_at = time.time()


def train_unet(args, device):
    pool = Pool(args.out, device)
    empty = torch.full((networks.TOKENS,), int(pool.tokens[0, -1]))
    empty[0] = pool.tokens[0, 0]
    unet = networks.build_unet().to(device).to(memory_format=torch.channels_last)
    text = networks.build_text_encoder(int(pool.tokens.max()) + 1).to(device)
    run = Run(args, "unet", {"unet": unet, "text": text}, args.rate or 8e-4)
    rng = np.random.default_rng(17 + run.step)
    torch.manual_seed(17 + run.step)
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0).float().to(device)
    while run.done() < 1:
        pictures, tokens = pool.batch(rng, args.batch)
        tokens[torch.rand(len(tokens)) < 0.1] = empty.to(device)
        latents = to_latents(pictures, pool.basis)
        noise = torch.randn_like(latents)
        # A little more often where shapes and colours are decided.
        t = (torch.rand(len(latents), device=device) ** 0.8 * 1000).long().clamp(max=999)
        a = kept[t][:, None, None, None]
        noisy = (a.sqrt() * latents + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        # Captions are short: what lies behind the longest one is padding, whose states barely differ.
        states = text(tokens).last_hidden_state
        guess = unet(noisy, t, states).sample
        weight = torch.clamp(kept[t] / (1 - kept[t]), max=5) / (kept[t] / (1 - kept[t]))
        loss = (((guess - noise) ** 2).mean((1, 2, 3)) * weight).mean() / weight.mean()
        run.take(loss)
    run.save()


def build_decoder():
    vae = networks.build_vae()
    return torch.nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder})


def train_decoder(args, device):
    pool = Pool(args.out, device)
    parts = build_decoder().to(device).to(memory_format=torch.channels_last)
    for module in parts.modules():
        # Residual branches begin silent.
        if type(module).__name__ == "ResnetBlock2D" and args.fresh:
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    run = Run(args, "decoder", {"decoder": parts}, args.rate or 2e-3)
    rng = np.random.default_rng(29 + run.step)
    while run.done() < 1:
        pictures, _ = pool.batch(rng, args.batch)
        latents = to_latents(pictures, pool.basis)
        # The network's latents are not exact either.
        latents = latents + 0.05 * torch.randn_like(latents)
        drawn = parts["decoder"](parts["post_quant_conv"](latents / networks.LATENT_SCALE))
        edge = sum(F.l1_loss(a, b) for a, b in zip(edges(drawn), edges(pictures)))
        run.take(F.l1_loss(drawn, pictures) + 0.5 * edge)
    run.save()


def train_encoder(args, device):
    pool = Pool(args.out, device)
    vae = networks.build_vae().to(device).to(memory_format=torch.channels_last)
    parts = torch.nn.ModuleDict({"quant_conv": vae.quant_conv, "encoder": vae.encoder})
    run = Run(args, "encoder", {"encoder": parts}, args.rate or 2e-3)
    rng = np.random.default_rng(31 + run.step)
    while run.done() < 1:
        pictures, _ = pool.batch(rng, args.batch)
        moments = parts["quant_conv"](parts["encoder"](pictures)) * networks.LATENT_SCALE
        target = to_latents(pictures, pool.basis)
        run.take(F.mse_loss(moments[:, :4], target) + 1e-3 * F.mse_loss(moments[:, 4:], torch.full_like(target, -1.0)))
    run.save()


def edges(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


# --- looking at it ----------------------------------------------------------------------------------------------------

@torch.no_grad()
def sample(args, device):
    """A grid of pictures by the average weights, with the schedule that the product uses."""
    from diffusers import DPMSolverMultistepScheduler
    pool = Pool(args.out, device)
    unet, text = networks.build_unet().to(device), networks.build_text_encoder(int(pool.tokens.max()) + 1).to(device)
    average = torch.load(args.out / "unet.pt")["average"]
    unet.load_state_dict(average["unet"]), text.load_state_dict(average["text"])
    decoder = None
    if (args.out / "decoder.pt").exists():
        decoder = build_decoder()
        decoder.load_state_dict(torch.load(args.out / "decoder.pt")["average"]["decoder"])
    tokenizer = Tokenizer(args.vocabulary)
    known = {clip: row for row, clip in enumerate(json.loads((args.out / "tokens.json").read_text()))}
    prompts = args.prompts or PROMPTS
    rows = torch.from_numpy(token_rows(["", *prompts], tokenizer, known)).long()
    states = text(rows).last_hidden_state
    context = torch.cat([states[:1].expand(len(prompts), -1, -1), states[1:]])
    schedule = DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    schedule.set_timesteps(args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    x = torch.randn(len(prompts), 4, 16, 16, generator=generator)
    for t in schedule.timesteps:
        low, high = unet(torch.cat([x, x]), t, context).sample.chunk(2)
        x = schedule.step(low + args.guidance * (high - low), t, x, generator=generator).prev_sample
    if decoder is not None:
        y = decoder["decoder"](decoder["post_quant_conv"](x / networks.LATENT_SCALE))
    else:
        y = F.pixel_shuffle(torch.einsum("kc,nchw->nkhw", pool.basis["up"], x) + pool.basis["mean"][None, :, None, None], PATCH)
    y = (y.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    columns = 8
    grid = np.zeros(((len(y) + columns - 1) // columns * 68, columns * 68, 3), np.uint8)
    for i, picture in enumerate(y):
        grid[i // columns * 68:][:64, i % columns * 68:][:, :64] = picture
    Image.fromarray(grid).resize((grid.shape[1] * 2, grid.shape[0] * 2), 0).save(args.out / "samples.png")


PROMPTS = [
    "a red circle on a blue background", "a house with a red roof", "a green tree", "a yellow star on a purple background", "mountains at sunset", "a boat on the sea",
    "a smiling face", "a castle at night", "a blue square", "a pink heart", "a rocket in space", "a red car", "a black cat", "a yellow flower", "a red mushroom", "a green potion",
    "an orange fish", "a city at night", "a palm tree on the beach", "a purple planet with rings", "a red balloon", "a blue gem", "a green triangle", "a white ring on black",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["latents", "unet", "decoder", "encoder", "sample"])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--vocabulary", type=pathlib.Path, default=pathlib.Path("bpe_simple_vocab_16e6.txt.gz"))
    parser.add_argument("--pictures", type=int, default=24000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="begin the decoder with silent residual branches")
    parser.add_argument("--prompts", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.part == "latents":
        draw_latents(args)
    elif args.part == "sample":
        sample(args, "cpu")
    else:
        {"unet": train_unet, "decoder": train_decoder, "encoder": train_encoder}[args.part](args, device)


if __name__ == "__main__":
    main()
