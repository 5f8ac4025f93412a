//! Safetensors and GGUF readers.
