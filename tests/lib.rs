//! Tests that cross crates or drive the real program; see the `it` and `e2e` folders.
