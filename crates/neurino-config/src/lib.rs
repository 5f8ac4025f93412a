//! Settings, environment variables and data directories.
