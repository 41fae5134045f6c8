//! Why a request to the registry is refused. Texts read after "failed to".

use alicia_contract::Problem;
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::problem::InputFault;

/// A request that was understood and not granted; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The registration has faults.
    #[error("register: {} of its values cannot be used; the first is `{}`: {}",
        .0.len(), .0.first().map_or("", |fault| &fault.pointer),
        .0.first().map_or("", |fault| &fault.message))]
    Invalid(Vec<InputFault>),
    /// Somebody else holds the entry, or the name.
    #[error("act for {service} as {caller}: {reason}")]
    NotYours {
        /// Who asked.
        caller: String,
        /// The service that it asked for.
        service: ServiceName,
        /// Whose it is, and what to do.
        reason: &'static str,
    },
    /// A newer copy is there.
    #[error(
        "register {instance} with epoch {epoch}: epoch {newest} of it is already known; this copy is old and must end"
    )]
    Fenced {
        /// The instance.
        instance: InstanceId,
        /// Its epoch.
        epoch: Epoch,
        /// The newest known.
        newest: Epoch,
    },
    /// The instance ended or left and does not come back under the same id and epoch.
    #[error(
        "register {instance}: it is gone ({reason}); a new start registers with a new instance id or a higher epoch"
    )]
    Ended {
        /// The instance.
        instance: InstanceId,
        /// Why it went.
        reason: String,
    },
    /// The id belongs to an instance of another service.
    #[error(
        "register {instance} as {service}: this id belongs to an instance of {holder}; use a ULID of its own"
    )]
    OtherService {
        /// The instance.
        instance: InstanceId,
        /// The service that was named.
        service: ServiceName,
        /// The service that has it.
        holder: ServiceName,
    },
    /// No room.
    #[error(
        "register one more instance: there are {limit} already {within}; remove some, or raise the limit in `registry`"
    )]
    Full {
        /// The limit.
        limit: usize,
        /// Of what.
        within: &'static str,
    },
    /// There is no such instance.
    #[error("find the instance {0}: it is not registered, or has been gone for long")]
    Unknown(InstanceId),
}

impl Refusal {
    /// The HTTP status of a problem document.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 422,
            Self::NotYours { .. } => 403,
            Self::Fenced { .. } | Self::Ended { .. } | Self::OtherService { .. } => 409,
            Self::Full { .. } => 503,
            Self::Unknown(_) => 404,
        }
    }

    /// The title of a problem document: the same for each occurrence.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "Invalid registration",
            Self::NotYours { .. } => "Not yours",
            Self::Fenced { .. } => "A newer copy is there",
            Self::Ended { .. } => "The instance is gone",
            Self::OtherService { .. } => "The id belongs to another service",
            Self::Full { .. } => "The registry is full",
            Self::Unknown(_) => "No such instance",
        }
    }

    /// The stable code of a problem document.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "registry.invalid_registration",
            Self::NotYours { .. } => "registry.not_yours",
            Self::Fenced { .. } => "registry.fenced",
            Self::Ended { .. } => "registry.ended",
            Self::OtherService { .. } => "registry.other_service",
            Self::Full { .. } => "registry.full",
            Self::Unknown(_) => "registry.unknown_instance",
        }
    }
}

/// A problem document of the registry.
pub(crate) fn problem(status: u16, code: &str, title: &str, detail: String) -> Problem {
    Problem {
        kind: format!("/docs/errors/{code}"),
        title: title.to_owned(),
        status,
        detail,
        code: code.to_owned(),
        request_id: None,
        faults: Vec::new(),
    }
}
