//! The core against a model of the keeper: what a person would tell as a story, and random events.

mod causes;
mod faults;
mod properties;
mod simulation;
mod stories;
mod updates;
mod world;
