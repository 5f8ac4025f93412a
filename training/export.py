"""Writes the trained networks as one Stable Diffusion 1.5 checkpoint, in half precision, and proves that it is the same model.

    python export.py --runs runs --out ../models/weights/neurino-toybox-64.safetensors

Training knows only the words of its captions; the file has CLIP's whole vocabulary. A synonym of a known word gets that word's
embedding, and every other word that of the comma, which the model has learnt to read past.
"""
import argparse
import hashlib
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import networks
import scenes
import single_file
import train

VOCABULARY = 49408


def full_embedding(compact, known, tokenizer):
    """CLIP's vocabulary [49408, width] from the rows of the known tokens."""
    row = {token: i for i, token in enumerate(known)}
    (comma,) = tokenizer(",")
    out = compact[row[comma]].repeat(VOCABULARY, 1)
    for token, i in row.items():
        out[token] = compact[i]
    for word, others in scenes.SYNONYMS.items():
        base = tokenizer(word)
        if len(base) != 1 or base[0] not in row:
            print(f"`{word}` is not one known token: its synonyms are left out")
            continue
        for other in others:
            ids = tokenizer(other)
            if len(ids) == 1 and ids[0] not in row:
                out[ids[0]] = compact[row[base[0]]]
    return out


def autoencoder(runs):
    """The decoder as trained; the encoder too where it is, else the near-linear one fitted here."""
    vae = networks.build_vae()
    decoder = torch.load(runs / "decoder.pt", weights_only=False)["average"]["decoder"]
    vae.load_state_dict(decoder, strict=False)
    path = runs / "encoder.pt"
    if path.exists():
        vae.load_state_dict(torch.load(path, weights_only=False)["average"]["encoder"], strict=False)
        return vae
    fit_encoder(vae, train.Pool(runs, "cpu"))
    return vae


@torch.no_grad()
def fit_encoder(vae, pool):
    """An encoder without training: what it shall compute is linear, so it starts as nearly linear and its last layer is solved for."""
    fresh = networks.pass_through(networks.build_vae())
    vae.encoder.load_state_dict(fresh.encoder.state_dict())
    pictures = torch.cat([pool.batch(np.random.default_rng(i), 16)[0] for i in range(3)])
    target = train.to_latents(pictures, pool.basis)
    seen = []
    hook = vae.encoder.conv_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vae.encoder(pictures)
    hook.remove()
    out = vae.encoder.conv_out
    x = torch.nn.functional.unfold(seen[0], 3, padding=1).transpose(1, 2).reshape(-1, out.in_channels * 9)
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    gram = x.T @ x
    gram += torch.eye(len(gram)) * 1e-5 * gram.diagonal().mean()
    best = torch.linalg.solve(gram, x.T @ target.permute(0, 2, 3, 1).reshape(-1, 4).double()).float()
    out.weight[:4], out.bias[:4] = best[:-1].T.reshape(4, out.in_channels, 3, 3), best[-1]
    out.weight[4:], out.bias[4:] = 0, -5
    quant = vae.quant_conv
    quant.weight.zero_(), quant.bias.zero_()
    for c in range(8):
        quant.weight[c, c] = 1 / networks.LATENT_SCALE if c < 4 else 1
    check = vae.encode(pictures).latent_dist.mean * networks.LATENT_SCALE
    print("encoder: mean square error of unit latents", (check - target).square().mean().item())


def same(a, b):
    return all(torch.equal(a[k].half(), b[k].half()) for k in a)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--unet", type=pathlib.Path, help="the UNet and text encoder to take (runs/finished/unet.pt)")
    parser.add_argument("--vocabulary", type=pathlib.Path, default=pathlib.Path("bpe_simple_vocab_16e6.txt.gz"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--decoder-only", action="store_true", help="leave the autoencoder's encoder out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    saved = torch.load(args.unet or args.runs / "finished" / "unet.pt", weights_only=False)
    unet, text = saved["average"]["unet"], dict(saved["average"]["text"])
    known = json.loads((args.runs / "tokens.json").read_text())
    tokenizer = train.Tokenizer(args.vocabulary)
    name = "text_model.embeddings.token_embedding.weight"
    text[name] = full_embedding(text[name], known, tokenizer)
    vae = autoencoder(args.runs).state_dict()
    tensors = single_file.pack(unet, vae, text)
    if args.decoder_only:
        tensors = {k: v for k, v in tensors.items() if not k.startswith(("first_stage_model.encoder.", "first_stage_model.quant_conv."))}
    save_file(tensors, args.out, metadata={"format": "pt", "modelspec.title": "Neurino Toybox 64", "modelspec.license": "Apache-2.0"})
    back = single_file.unpack(load_file(args.out), unet.keys(), [k for k in vae if not args.decoder_only or not k.startswith(("encoder.", "quant_conv."))])
    assert same(back[0], unet) and same(back[1], vae) and same(back[2], text), "what was read back differs"
    data = args.out.read_bytes()
    print(f"{saved['step']} steps; {len(tensors)} tensors, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
