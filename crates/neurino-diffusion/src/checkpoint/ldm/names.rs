//! The names that latent diffusion's own code gives the modules of a network, from diffusers' names.
//!
//! Source: `CompVis/latent-diffusion@a506df5` `ldm/modules/diffusionmodules/{openaimodel,model}.py` and
//! `mlfoundations/open_clip@v2.20.0` `src/open_clip/transformer.py`, whose attributes these are.

/// Where the rows of a tensor lie in the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As asked for.
    Same,
    /// A third of the stored rows: 0 (queries), 1 (keys) or 2 (values).
    Third(usize),
    /// Rows and columns exchanged.
    Transposed,
}

/// More than any network has of anything; numbers are reckoned with.
const NUMBER_MAX: usize = 10_000;

/// `a.3.b.c` for `a`: the number and the rest.
fn numbered<'a>(name: &'a str, part: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = name.strip_prefix(part)?.strip_prefix('.')?.split_once('.')?;
    let number = number.parse().ok().filter(|number| *number <= NUMBER_MAX)?;
    Some((number, rest))
}

/// The stored names that a UNet's `name` may have: two where an upsampler's place depends on whether
/// attention precedes it. `name` is a tensor's or a module's.
pub fn unet(name: &str, layers_per_block: usize) -> Vec<String> {
    const OUTSIDE: [(&str, &str); 7] = [
        ("conv_in", "input_blocks.0.0"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ];
    let per = layers_per_block;
    if let Some((level, rest)) = numbered(name, "down_blocks") {
        // The first is the convolution at the entrance; each level has its layers and a downsampler.
        let first = (per + 1) * level + 1;
        return block("input_blocks", first, rest)
            .or_else(|| {
                let end = rest.strip_prefix("downsamplers.0.conv")?;
                Some(vec![format!("input_blocks.{}.0.op{end}", first + per)])
            })
            .unwrap_or_default();
    }
    if let Some((level, rest)) = numbered(name, "up_blocks") {
        let first = (per + 1) * level;
        return block("output_blocks", first, rest)
            .or_else(|| {
                let end = rest.strip_prefix("upsamplers.0.conv")?;
                let place = |at| format!("output_blocks.{}.{at}.conv{end}", first + per);
                Some(vec![place(2), place(1)])
            })
            .unwrap_or_default();
    }
    if let Some(rest) = name.strip_prefix("mid_block.") {
        let at = |part: &str, place: usize| {
            let (number, rest) = numbered(rest, part)?;
            let inner = if part == "resnets" { resnet(rest) } else { rest.to_owned() };
            Some(format!("middle_block.{}.{inner}", place + 2 * number))
        };
        return at("resnets", 0).or_else(|| at("attentions", 1)).into_iter().collect();
    }
    let outside = OUTSIDE.iter().find_map(|(ours, theirs)| {
        let end = name.strip_prefix(ours)?;
        (end.is_empty() || end.starts_with('.')).then(|| format!("{theirs}{end}"))
    });
    outside.into_iter().collect()
}

/// A resnet or an attention of a level whose first layer is number `first`.
fn block(side: &str, first: usize, rest: &str) -> Option<Vec<String>> {
    if let Some((layer, rest)) = numbered(rest, "resnets") {
        return Some(vec![format!("{side}.{}.0.{}", first + layer, resnet(rest))]);
    }
    let (layer, rest) = numbered(rest, "attentions")?;
    Some(vec![format!("{side}.{}.1.{rest}", first + layer)])
}

fn resnet(name: &str) -> String {
    const PARTS: [(&str, &str); 6] = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ];
    let (part, end) =
        name.split_once('.').map_or((name, String::new()), |(part, end)| (part, format!(".{end}")));
    let theirs = PARTS.iter().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| theirs);
    format!("{theirs}{end}")
}

/// How many layers a level of the UNet has, from the stored names (without the model's prefix): the
/// first downsampler, or the end, comes after them.
pub fn unet_layers_per_block<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let (mut first_op, mut last) = (usize::MAX, 0);
    for name in names {
        if let Some((number, rest)) = numbered(name, "input_blocks") {
            last = last.max(number);
            if rest.starts_with("0.op.") {
                first_op = first_op.min(number);
            }
        }
    }
    if first_op == usize::MAX { last } else { first_op.saturating_sub(1) }
}

/// The stored name of an autoencoder's tensor `name`. The decoder's levels are counted from the
/// other end.
pub fn vae(name: &str, levels: usize) -> String {
    const ATTENTION: [(&str, &str); 5] = [
        ("group_norm.", "norm."),
        ("to_q.", "q."),
        ("to_k.", "k."),
        ("to_v.", "v."),
        ("to_out.0.", "proj_out."),
    ];
    let Some((side, rest)) = name.split_once('.').filter(|(side, _)| side.ends_with("coder"))
    else {
        return name.to_owned();
    };
    if let Some(rest) = rest.strip_prefix("mid_block.") {
        let rest = if let Some((number, rest)) = numbered(rest, "resnets") {
            format!("block_{}.{}", number + 1, vae_resnet(rest))
        } else {
            let rest = rest.strip_prefix("attentions.0.").unwrap_or(rest);
            let part = ATTENTION.iter().find_map(|(ours, theirs)| {
                Some(format!("attn_1.{theirs}{}", rest.strip_prefix(ours)?))
            });
            part.unwrap_or_else(|| rest.to_owned())
        };
        return format!("{side}.mid.{rest}");
    }
    let level = |part: &str, short: &str, sampler: &str, place: &dyn Fn(usize) -> usize| {
        let (number, rest) = numbered(rest, part)?;
        let number = place(number);
        if let Some((layer, rest)) = numbered(rest, "resnets") {
            return Some(format!("{side}.{short}.{number}.block.{layer}.{}", vae_resnet(rest)));
        }
        let end = rest.strip_prefix(sampler)?.strip_prefix("rs.0.")?;
        Some(format!("{side}.{short}.{number}.{sampler}.{end}"))
    };
    level("down_blocks", "down", "downsample", &|number| number)
        .or_else(|| {
            level("up_blocks", "up", "upsample", &|n| levels.wrapping_sub(n).wrapping_sub(1))
        })
        .unwrap_or_else(|| format!("{side}.{}", rest.replacen("conv_norm_out", "norm_out", 1)))
}

fn vae_resnet(name: &str) -> String {
    name.replacen("conv_shortcut", "nin_shortcut", 1)
}

/// How many levels the decoder has, from the stored names (without the model's prefix).
pub fn vae_levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let levels = names.filter_map(|name| numbered(name, "decoder.up"));
    levels.map(|(number, _)| number + 1).max().unwrap_or(0)
}

/// Where open_clip stores the tensor that Hugging Face's text encoder calls `name`.
pub fn open_clip(name: &str) -> Option<(String, Form)> {
    const OUTSIDE: [(&str, &str, Form); 5] = [
        ("text_model.embeddings.token_embedding.weight", "token_embedding.weight", Form::Same),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding", Form::Same),
        ("text_model.final_layer_norm.weight", "ln_final.weight", Form::Same),
        ("text_model.final_layer_norm.bias", "ln_final.bias", Form::Same),
        ("text_projection.weight", "text_projection", Form::Transposed),
    ];
    const LAYER: [(&str, &str); 5] = [
        ("layer_norm1.", "ln_1."),
        ("layer_norm2.", "ln_2."),
        ("mlp.fc1.", "mlp.c_fc."),
        ("mlp.fc2.", "mlp.c_proj."),
        ("self_attn.out_proj.", "attn.out_proj."),
    ];
    if let Some(&(_, theirs, form)) = OUTSIDE.iter().find(|(ours, ..)| *ours == name) {
        return Some((theirs.to_owned(), form));
    }
    let (layer, rest) = numbered(name, "text_model.encoder.layers")?;
    let stored = |part: String| format!("transformer.resblocks.{layer}.{part}");
    let same = LAYER.iter().find_map(|(ours, theirs)| {
        Some((stored(format!("{theirs}{}", rest.strip_prefix(ours)?)), Form::Same))
    });
    same.or_else(|| {
        let rest = rest.strip_prefix("self_attn.")?;
        let third = ["q_proj.", "k_proj.", "v_proj."].iter().position(|p| rest.starts_with(p))?;
        Some((stored(format!("attn.in_proj_{}", &rest["q_proj.".len()..])), Form::Third(third)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_keep_their_place() {
        let found = |name| unet(name, 2);
        for (ours, theirs) in [
            ("conv_in.weight", "input_blocks.0.0.weight"),
            ("down_blocks.1.resnets.1.conv_shortcut.bias", "input_blocks.5.0.skip_connection.bias"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("down_blocks.2.attentions.0.proj_in", "input_blocks.7.1.proj_in"),
            ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
            ("mid_block.attentions.0.norm.bias", "middle_block.1.norm.bias"),
            ("up_blocks.3.resnets.2.norm2", "output_blocks.11.0.out_layers.0"),
            ("add_embedding.linear_2.weight", "label_emb.0.2.weight"),
        ] {
            assert_eq!(found(ours), [theirs]);
        }
        let places = ["output_blocks.5.2.conv.weight", "output_blocks.5.1.conv.weight"];
        assert_eq!(found("up_blocks.1.upsamplers.0.conv.weight"), places);
        assert!(found("elsewhere.weight").is_empty());
        for (ours, theirs) in [
            (
                "decoder.up_blocks.0.resnets.2.conv_shortcut.weight",
                "decoder.up.3.block.2.nin_shortcut.weight",
            ),
            ("decoder.up_blocks.1.upsamplers.0.conv.bias", "decoder.up.2.upsample.conv.bias"),
            (
                "encoder.down_blocks.1.downsamplers.0.conv.bias",
                "encoder.down.1.downsample.conv.bias",
            ),
            ("encoder.mid_block.attentions.0.to_out.0.bias", "encoder.mid.attn_1.proj_out.bias"),
            ("encoder.mid_block.resnets.1.norm1.bias", "encoder.mid.block_2.norm1.bias"),
            ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
            ("post_quant_conv.bias", "post_quant_conv.bias"),
        ] {
            assert_eq!(vae(ours, 4), theirs);
        }
        // A file without levels, and one that counts them from far away.
        assert!(vae("decoder.up_blocks.0.resnets.0.conv1.weight", 0).starts_with("decoder.up."));
        let far = [format!("input_blocks.{}.0.x", usize::MAX)];
        assert_eq!(unet_layers_per_block(far.iter().map(String::as_str)), 0);
        assert_eq!(
            open_clip("text_model.encoder.layers.7.self_attn.k_proj.bias"),
            Some(("transformer.resblocks.7.attn.in_proj_bias".to_owned(), Form::Third(1)))
        );
    }
}
