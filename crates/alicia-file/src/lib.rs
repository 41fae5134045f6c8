//! alicia.yaml as a document with positions, and its faults with line and column.
