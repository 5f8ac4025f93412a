//! Tests of the wire types as others see them.

mod typescript;
