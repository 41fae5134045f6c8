//! `alicia.yaml` as a document with positions, and its faults with line and column.
//!
//! ```text
//! Sources ──Document::parse──▶ Document ──check(schema)──▶ faults
//!                                  │
//!                            fleet::read ──▶ Fleet ──fleet::check──▶ faults
//!                                              ├─────machine::check─▶ faults
//!                                              └─────graph::order, needed_by
//! ```
//!
//! Texts are literal: `${NAME}` in a value stays `${NAME}`. What a program should find in its environment is written
//! below `environment` or in a file of `env_files`.

pub use document::Document;
pub use fault::{Excerpt, Fault, Origin, in_order};
pub use nearest::{nearest, one_of};
pub use schema::{Schema, SchemaError};
pub use source::{FRAGMENTS_MAX, FileText, Sources, VARIABLE_PREFIX};
pub use tree::pointer_to;
pub use yaml::{ALIAS_BYTES_MAX, DEPTH_MAX, FILE_BYTES_MAX, NODES_MAX};

pub mod env_file;
pub mod fleet;
pub mod graph;
pub mod machine;

mod document;
mod fault;
mod layer;
mod nearest;
mod overlay;
mod scalar;
mod schema;
mod source;
mod tree;
mod yaml;
