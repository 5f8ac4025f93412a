//! The loop: lease, run, digest, sign, submit; durable outbox.
