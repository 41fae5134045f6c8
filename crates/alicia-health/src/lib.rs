//! Watches services and raises alerts.
