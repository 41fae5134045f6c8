//! Who is there and what they can do.
