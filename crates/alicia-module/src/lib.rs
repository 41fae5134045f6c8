//! What a module is: the trait, its context, health, API errors and metrics.
