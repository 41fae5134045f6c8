//! The keeper with real processes, sockets, files and cgroups.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own their tasks and their clock; there is no context here"
)]

#[cfg(test)]
mod containment;
#[cfg(test)]
mod escape;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod notify;
#[cfg(test)]
mod output;
#[cfg(test)]
mod passed;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod socket;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod survival;
