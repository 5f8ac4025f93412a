//! GPU, CPU, memory and disk probing.
