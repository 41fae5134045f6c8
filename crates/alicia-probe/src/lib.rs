//! One try of a health probe, with a deadline.
