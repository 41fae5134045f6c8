//! Who somebody is and what they may do: keys, tokens, topic permissions.
