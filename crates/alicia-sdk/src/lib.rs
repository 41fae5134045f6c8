//! For services written in Rust: register, heartbeat, commands, health.
