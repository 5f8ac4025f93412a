//! The names of tensors in LoRA files, of all trainers, brought to one form.

use super::Part;

/// What a tensor of an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `[rank, in]`
    Down,
    /// `[out, rank]`
    Up,
    /// A number that is divided by the rank.
    Alpha,
}

/// A tensor's name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) part: Part,
    /// The layer's path with underscores for dots.
    pub(super) layer: String,
    pub(super) role: Role,
    /// Whether peft wrote it, which keeps an update's strength in another file.
    pub(super) of_peft: bool,
    /// The file's name without what tells the role.
    pub(super) base: &'a str,
}

/// Ends of names. Longer ones come before their own ends.
const ROLES: [(&str, Role); 13] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
];

/// Beginnings with which kohya's trainer names networks; the paths behind have underscores.
const UNDERSCORED: [(&str, Part); 6] = [
    ("lora_unet_", Part::Denoiser),
    ("lora_transformer_", Part::Denoiser),
    ("lora_te1_", Part::TextEncoder),
    ("lora_te2_", Part::TextEncoder2),
    ("lora_te3_", Part::T5),
    ("lora_te_", Part::TextEncoder),
];

/// Beginnings with which diffusers and others name networks; the paths behind have dots.
const DOTTED: [(&str, Part); 6] = [
    ("unet.", Part::Denoiser),
    ("transformer.", Part::Denoiser),
    ("diffusion_model.", Part::Denoiser),
    ("text_encoder.", Part::TextEncoder),
    ("text_encoder_2.", Part::TextEncoder2),
    (PEFT, Part::Denoiser),
];

/// The beginning with which peft itself writes names.
pub(super) const PEFT: &str = "base_model.model.";

/// Takes a name apart; `None` if it is not a tensor of an update of low rank.
pub(super) fn parse(name: &str) -> Option<Key<'_>> {
    let (base, role) =
        ROLES.iter().find_map(|&(end, role)| Some((name.strip_suffix(end)?, role)))?;
    let begins = |(start, part): &(&str, Part)| Some((base.strip_prefix(start)?, *part));
    if let Some((layer, part)) = UNDERSCORED.iter().find_map(begins) {
        let layer = layer.strip_prefix("text_model_").unwrap_or(layer);
        let part = told_by(layer, part);
        return Some(Key { part, layer: layer.to_owned(), role, of_peft: false, base });
    }
    let (path, part) = DOTTED.iter().find_map(begins).unwrap_or((base, Part::Denoiser));
    let layer = underscored(&modern(path, part));
    let of_peft = base.starts_with(PEFT);
    Some(Key { part: told_by(&layer, part), layer, role, of_peft, base })
}

/// T5 is what Flux has for a second text encoder: its layers tell it from CLIP.
fn told_by(layer: &str, part: Part) -> Part {
    let is_t5 = part == Part::TextEncoder2 && layer.starts_with("encoder_block_");
    if is_t5 { Part::T5 } else { part }
}

/// A path with underscores for dots, without the text model's own name: not all trainers write it.
pub(super) fn underscored(path: &str) -> String {
    path.strip_prefix("text_model.").unwrap_or(path).replace('.', "_")
}

/// The path of a layer whose update the first diffusers kept in an attention processor or beside the
/// attention's own layers.
fn modern(path: &str, part: Part) -> String {
    let path = path.replacen(".processor.", ".", 1);
    let (parent, leaf) = path.rsplit_once('.').unwrap_or(("", &path));
    let text = part != Part::Denoiser && parent.ends_with("self_attn");
    let leaf = match leaf {
        "to_q" if text => "q_proj",
        "to_k" if text => "k_proj",
        "to_v" if text => "v_proj",
        "to_out" if text => "out_proj",
        "to_out" => "to_out.0",
        leaf => leaf,
    };
    if parent.is_empty() { leaf.to_owned() } else { format!("{parent}.{leaf}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_trainers_come_to_one_form() {
        let (denoiser, text) = (Part::Denoiser, Part::TextEncoder);
        for (name, part, layer, role) in [
            (
                "lora_unet_input_blocks_4_1_proj_in.lora_down.weight",
                denoiser,
                "input_blocks_4_1_proj_in",
                Role::Down,
            ),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
                text,
                "encoder_layers_0_mlp_fc1",
                Role::Alpha,
            ),
            (
                "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
                Part::TextEncoder2,
                "encoder_layers_0_mlp_fc1",
                Role::Up,
            ),
            (
                "lora_te3_encoder_block_1_layer_1_DenseReluDense_wi_0.lora_up.weight",
                Part::T5,
                "encoder_block_1_layer_1_DenseReluDense_wi_0",
                Role::Up,
            ),
            (
                "lora_te2_encoder_block_0_layer_0_SelfAttention_q.alpha",
                Part::T5,
                "encoder_block_0_layer_0_SelfAttention_q",
                Role::Alpha,
            ),
            (
                "text_encoder_2.encoder.block.0.layer.0.SelfAttention.o.lora_A.weight",
                Part::T5,
                "encoder_block_0_layer_0_SelfAttention_o",
                Role::Down,
            ),
            (
                "unet.mid_block.attn1.to_out.0.lora_A.weight",
                denoiser,
                "mid_block_attn1_to_out_0",
                Role::Down,
            ),
            (
                "unet.mid_block.attn1.processor.to_out_lora.up.weight",
                denoiser,
                "mid_block_attn1_to_out_0",
                Role::Up,
            ),
            (
                "mid_block.attn1.processor.to_k_lora.down.weight",
                denoiser,
                "mid_block_attn1_to_k",
                Role::Down,
            ),
            (
                "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.down.weight",
                text,
                "encoder_layers_1_self_attn_out_proj",
                Role::Down,
            ),
            (
                "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.lora_linear_layer.up.weight",
                text,
                "encoder_layers_1_self_attn_q_proj",
                Role::Up,
            ),
            (
                "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight",
                denoiser,
                "double_blocks_0_img_attn_qkv",
                Role::Up,
            ),
        ] {
            let key = parse(name).expect(name);
            assert_eq!((key.part, key.layer.as_str(), key.role), (part, layer, role), "{name}");
        }
        assert_eq!(parse("lora_unet_conv_in.lora_mid.weight"), None);
        assert_eq!(parse("model.diffusion_model.out.0.weight"), None);
    }
}
