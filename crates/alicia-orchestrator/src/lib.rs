//! Starts, stops, restarts and scales services.
