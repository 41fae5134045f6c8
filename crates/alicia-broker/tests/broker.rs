//! The broker over real sockets.

#[cfg(test)]
#[path = "broker/house.rs"]
mod house;
#[cfg(test)]
#[path = "broker/wire.rs"]
mod wire;

#[cfg(test)]
#[path = "broker/delivery.rs"]
mod delivery;
#[cfg(test)]
#[path = "broker/foreign.rs"]
mod foreign;
#[cfg(test)]
#[path = "broker/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "broker/limits.rs"]
mod limits;
#[cfg(test)]
#[path = "broker/module.rs"]
mod module;
#[cfg(test)]
#[path = "broker/permissions.rs"]
mod permissions;
#[cfg(test)]
#[path = "broker/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "broker/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "broker/subscriptions.rs"]
mod subscriptions;
#[cfg(test)]
#[path = "broker/wills.rs"]
mod wills;
