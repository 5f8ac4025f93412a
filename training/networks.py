"""The three networks of the image starter model: Stable Diffusion 1.5 in small.

Everything the engine reads from tensor shapes follows SD 1.5: 8 heads per attention of the UNet, 32 groups per
normalisation, heads of 64 in the text encoder. Attention is where it is cheap: in the middle level and the mid block.
"""
import torch
from torch import nn
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

LATENT_SCALE = 0.18215
LATENT_SIDE = 16
TOKENS = 77
TEXT_WIDTH, TEXT_LAYERS = 64, 3
UNET_CHANNELS = (64, 96, 96)
UNET_ATTENTION = (False, True, False)
VAE_CHANNELS = (96, 96, 96)


LEVEL = 3.0


def offsets(channels):
    """0, +LEVEL, -LEVEL over the three channels of every group."""
    return torch.tensor([0.0, LEVEL, -LEVEL]).repeat(channels // 3)


def pass_through(vae):
    """Starts the autoencoder as a plain one: the first three latents are red, green and blue averaged over 4x4 pixels,
    the decoder repeats them. It has only details left to learn.

    A group of the normalisations is three channels, and dividing them by their own spread would lose how bright or red a
    flat area is. So two channels of a group start with an offset, +LEVEL and -LEVEL, which is what mean and spread then
    measure: every normalisation starts as nearly the identity.
    """
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if isinstance(layer, nn.Conv2d) and name.endswith("conv2"):
                layer.weight *= 0.1
                layer.bias.zero_()
            elif isinstance(layer, nn.GroupNorm) and not name.endswith("norm2"):
                layer.weight.fill_(LEVEL * (2 / 3) ** 0.5)
                layer.bias.copy_(-offsets(layer.num_channels))
            elif name.endswith("to_out.0"):
                layer.weight *= 0.1
        for side in (vae.encoder, vae.decoder):
            channels = side.conv_in.out_channels
            side.conv_in.weight *= 0.5
            side.conv_in.bias.copy_(offsets(channels))
            for colour in range(3):
                side.conv_in.weight[3 * colour] = 0
                side.conv_in.weight[3 * colour, colour, 1, 1] = 1
            for name, layer in side.named_modules():
                if isinstance(layer, nn.Conv2d) and name.endswith("samplers.0.conv"):
                    layer.weight *= 0.1
                    layer.weight -= layer.weight.mean((1, 2, 3), keepdim=True)
                    layer.bias.zero_()
                    for c in range(channels):
                        taps = layer.weight[c, c]
                        taps.zero_()
                        if side is vae.decoder:
                            taps += torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16
                        elif c < 9 or c % 5 == 0:
                            taps[:2, :2] += 0.25
                        else:  # one of the four pixels: where edges are
                            taps[c % 2, (c // 2) % 2] += 1
            side.conv_norm_out.bias += 3  # where SiLU is nearly linear
            out = side.conv_out
            out.weight *= 0.1
            out.weight -= out.weight.mean((1, 2, 3), keepdim=True)
            out.bias.zero_()
            for colour in range(3):
                out.weight[colour, 3 * colour, 1, 1] += 1
                out.bias[colour] -= 3
        for layer in (vae.quant_conv, vae.post_quant_conv):
            layer.weight.zero_()
            layer.bias.zero_()
            for c in range(4):
                layer.weight[c, c] = 1
        vae.quant_conv.bias[4:] = -5
    return vae


def build_vae():
    levels = len(VAE_CHANNELS)
    return AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=VAE_CHANNELS, layers_per_block=1,
                         down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
                         norm_num_groups=32, sample_size=64, scaling_factor=LATENT_SCALE)


def build_unet():
    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in UNET_ATTENTION)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(UNET_ATTENTION))
    return UNet2DConditionModel(sample_size=LATENT_SIDE, in_channels=4, out_channels=4, block_out_channels=UNET_CHANNELS,
                                down_block_types=down, up_block_types=up, layers_per_block=2,
                                cross_attention_dim=TEXT_WIDTH, attention_head_dim=8)


def build_text_encoder(vocabulary):
    return CLIPTextModel(CLIPTextConfig(vocab_size=vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
                                        num_hidden_layers=TEXT_LAYERS, num_attention_heads=TEXT_WIDTH // 64, hidden_act="quick_gelu",
                                        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=1))


def parameters(network):
    return sum(p.numel() for p in network.parameters())


if __name__ == "__main__":
    print("unet", parameters(build_unet()), "vae", parameters(build_vae()))
    print("text encoder", parameters(build_text_encoder(300)))
