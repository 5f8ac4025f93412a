//! Layers that language models share and burn lacks.
