//! For tests only: a real bus, store and context for one module.
