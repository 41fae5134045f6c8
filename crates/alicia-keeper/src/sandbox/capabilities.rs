//! Capabilities of the kernel by name.

use crate::protocol::Failure;

/// In the kernel's order (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The bits of these names.
pub(crate) fn parse(names: &[String]) -> Result<u64, Failure> {
    names.iter().try_fold(0, |bits, name| {
        let number = NAMES.iter().position(|it| it == name);
        let number = number.ok_or_else(|| {
            super::invalid(format!(
                "there is no capability \"{name}\"; write for example net_bind_service"
            ))
        })?;
        Ok(bits | 1 << number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        assert_eq!(parse(&[]), Ok(0));
        assert_eq!(
            parse(&["chown".into(), "net_bind_service".into()]),
            Ok(1 | 1 << 10)
        );
        assert_eq!(parse(&["checkpoint_restore".into()]), Ok(1 << 40));
        assert!(parse(&["CAP_CHOWN".into()]).is_err());
    }
}
