//! `alicia.yaml` as a document with positions, and its faults with line and column.

pub use document::Document;
pub use fault::{Excerpt, Fault, Origin, in_order};
pub use nearest::{nearest, one_of};
pub use schema::{Schema, SchemaError};
pub use source::{FRAGMENTS_MAX, FileText, Sources, VARIABLE_PREFIX};
pub use tree::pointer_to;
pub use yaml::{ALIAS_BYTES_MAX, DEPTH_MAX, FILE_BYTES_MAX, NODES_MAX};

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
