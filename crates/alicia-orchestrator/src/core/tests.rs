//! The core against a model of the keeper: what a person would tell as a story, and random events.

mod properties;
mod stories;
mod world;
