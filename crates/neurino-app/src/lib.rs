//! The application: one function per command, one stream of events, no framework.
