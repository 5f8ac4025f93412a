//! The chat formats of models that bring no template: old conversions left it out, and servers of their
//! time had it built in. The vocabulary tells which one a model was trained on.

use crate::tokenizer::Tokenizer;

/// A chat format.
pub(crate) struct Format {
    /// A token that only models of this format have.
    mark: &'static str,
    /// The token that ends an answer.
    pub(crate) end: &'static str,
    pub(super) template: &'static str,
}

/// A model that has both kinds of marks, as those that were made of Llama 3, was trained on the first.
const FORMATS: [Format; 2] = [
    // What transformers used for models without a template until 4.44.
    Format {
        mark: "<|im_start|>",
        end: "<|im_end|>",
        template: "{% for message in messages %}\
            {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    },
    // As Llama 3 (8B and 70B Instruct) has it in its `tokenizer_config.json`.
    Format {
        mark: "<|start_header_id|>",
        end: "<|eot_id|>",
        template: "{% if bos_token is defined %}{{ bos_token }}{% endif %}{% for message in messages %}\
            {{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
            {{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}\
            {% if add_generation_prompt %}\
            {{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    },
];

/// The format that a vocabulary has the marks of.
pub(crate) fn format(tokenizer: &Tokenizer) -> Option<&'static Format> {
    let has = |token: &str| tokenizer.token_id(token).is_some();
    FORMATS.iter().find(|format| has(format.mark) && has(format.end))
}
