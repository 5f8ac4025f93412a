//! Double-entry postings in integer micro-points.
