//! What tests share: a scripted engine, clocks, fixtures.
