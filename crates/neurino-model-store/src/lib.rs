//! Catalogue of models, verified downloads, the library on disk.
