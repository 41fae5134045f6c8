//! Starts, watches, reloads and stops modules; owns the HTTP listener.
