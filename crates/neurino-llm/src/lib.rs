//! Language models: architectures, tokenizer, chat template, sampling, generation.
