"""A Stable Diffusion 1.5 checkpoint in one file, and back: the names of its tensors in 'LDM' style and in diffusers' style."""
import re

import torch

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
TOP = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
       "time_embedding.linear_2": "time_embed.2", "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
       "mid_block.resnets.1": "middle_block.2"}
PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text": "cond_stage_model.transformer."}


def unet_names(names):
    """{name in diffusers: name in the file} of a UNet's tensors."""
    names = list(names)
    layers = 1 + max(int(m[1]) for n in names if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", n)))
    out = {}
    for name in names:
        new = next((name.replace(a, b, 1) for a, b in TOP.items() if name.startswith(a + ".")), None)
        if m := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
            side, level, kind, index, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
            block = (layers + 1) * level + index + (1 if side == "down" else 0)
            new = f"{'input' if side == 'down' else 'output'}_blocks.{block}.{0 if kind == 'resnets' else 1}.{rest}"
        elif m := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
            new = f"input_blocks.{(layers + 1) * (int(m[1]) + 1)}.0.op.{m[2]}"
        elif m := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
            place = 2 if any(n.startswith(f"up_blocks.{m[1]}.attentions.") for n in names) else 1
            new = f"output_blocks.{(layers + 1) * int(m[1]) + layers}.{place}.conv.{m[2]}"
        if ".resnets." in name:
            part = name.split(".")[-2]
            new = new.replace(f".{part}.", f".{RESNET[part]}.")
        out[name] = new
    return out


def vae_names(names):
    """{name in diffusers: name in the file} of an autoencoder's tensors."""
    names = list(names)
    last = max(int(m[1]) for n in names if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", n)))
    out = {}
    for name in names:
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{last - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{last - int(m[1])}.upsample.", new)
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = new.replace("mid_block.resnets.0.", "mid.block_1.").replace("mid_block.resnets.1.", "mid.block_2.")
        if "mid_block.attentions.0." in new:
            new = new.replace("mid_block.attentions.0.", "mid.attn_1.").replace("group_norm", "norm")
            for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
                new = new.replace(f".{ours}.", f".{theirs}.")
        out[name] = new
    return out


def is_projection(name):
    """The autoencoder's attention is of 1x1 convolutions in the file, of linear layers in diffusers."""
    return bool(re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$", name))


def pack(unet, vae, text):
    """The file's tensors, in half precision, from the three networks' state in diffusers' names."""
    out = {}
    for old, new in unet_names(unet).items():
        out[PREFIXES["unet"] + new] = unet[old]
    for old, new in vae_names(vae).items():
        out[PREFIXES["vae"] + new] = vae[old][:, :, None, None] if is_projection(new) else vae[old]
    for name, value in text.items():
        out[PREFIXES["text"] + name] = value
    return {k: v.detach().to(torch.float16).contiguous() for k, v in out.items() if v.is_floating_point()}


def unpack(file, unet_keys, vae_keys):
    """The three networks' state in full precision, from the file's tensors and the names that the networks have."""
    file = {k: v.float() for k, v in file.items()}
    unet = {old: file[PREFIXES["unet"] + new] for old, new in unet_names(unet_keys).items()}
    vae = {old: file[PREFIXES["vae"] + new] for old, new in vae_names(vae_keys).items()}
    vae = {k: v[:, :, 0, 0] if v.dim() == 4 and ".attentions." in k else v for k, v in vae.items()}
    text = {k.removeprefix(PREFIXES["text"]): v for k, v in file.items() if k.startswith(PREFIXES["text"])}
    return unet, vae, text
