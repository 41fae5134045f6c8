//! Users and groups, from the files only: name service libraries would bring their threads, sockets and
//! memory into the keeper. Accounts of a directory service are given by number.

use std::fs;
use std::io;
use std::path::Path;

use crate::protocol::{Failure, FailureCode};
use crate::sys::Identity;

/// Where accounts are.
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The user and the groups that a child is to have; `None` where it keeps the keeper's.
pub(crate) fn identity(
    user: Option<&str>,
    group: Option<&str>,
) -> Result<Option<Identity>, Failure> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let passwd = read(Path::new(PASSWD))?;
    let groups = read(Path::new(GROUP))?;
    resolve(&passwd, &groups, user, group).map(Some)
}

fn read(path: &Path) -> Result<String, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // A container image without accounts: numbers still work.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::system(
            format!("{} cannot be read: {error}", path.display()),
            &error,
        )),
    }
}

fn resolve(
    passwd: &str,
    groups: &str,
    user: Option<&str>,
    group: Option<&str>,
) -> Result<Identity, Failure> {
    let account = user.map(|user| find_user(passwd, user)).transpose()?;
    let group = match group {
        Some(group) => Some(find_group(groups, group)?),
        None => account.as_ref().and_then(|account| account.group),
    };
    let own_user = rustix::process::geteuid().as_raw();
    let own_group = rustix::process::getegid().as_raw();
    let user = account.as_ref().map_or(own_user, |account| account.user);
    // A number without an account has no group of its own: that of the same number, never the keeper's.
    let group = group.unwrap_or(if account.is_some() { user } else { own_group });
    let mut all = vec![group];
    if let Some(name) = account.and_then(|account| account.name) {
        all.extend(memberships(groups, &name).filter(|member| *member != group));
    }
    Ok(Identity {
        user,
        group,
        groups: all,
    })
}

struct Account {
    name: Option<String>,
    user: u32,
    group: Option<u32>,
}

/// By name, else by number.
fn find_user(passwd: &str, wanted: &str) -> Result<Account, Failure> {
    let number = wanted.parse::<u32>().ok();
    let accounts = || {
        passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let user = fields.nth(1)?.parse::<u32>().ok()?;
            let group = fields.next()?.parse::<u32>().ok()?;
            Some(Account {
                name: Some(name.to_owned()),
                user,
                group: Some(group),
            })
        })
    };
    let by_name = accounts().find(|account| account.name.as_deref() == Some(wanted));
    let by_number = || accounts().find(|account| Some(account.user) == number);
    by_name
        .or_else(by_number)
        .or(number.map(|user| Account {
            name: None,
            user,
            group: None,
        }))
        .ok_or_else(|| {
            Failure::new(
                FailureCode::UserUnknown,
                format!("no user \"{wanted}\" in {PASSWD}"),
            )
        })
}

fn find_group(groups: &str, wanted: &str) -> Result<u32, Failure> {
    let by_name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok())?
    });
    by_name.or_else(|| wanted.parse().ok()).ok_or_else(|| {
        Failure::new(
            FailureCode::GroupUnknown,
            format!("no group \"{wanted}\" in {GROUP}"),
        )
    })
}

fn memberships<'a>(groups: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let group = fields.next()?.parse().ok()?;
        fields
            .next()?
            .split(',')
            .any(|member| member == user)
            .then_some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nweb:x:33:\nlogs:x:44:web,root\nvideo:x:45:root\n";

    fn check(
        user: Option<&str>,
        group: Option<&str>,
        expect: Result<(u32, u32, &[u32]), FailureCode>,
    ) {
        let got = resolve(USERS, GROUPS, user, group);
        let got = got
            .as_ref()
            .map(|it| (it.user, it.group, it.groups.as_slice()));
        assert_eq!(
            got.map_err(|failure| failure.code),
            expect,
            "{user:?} {group:?}"
        );
    }

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        check(Some("web"), None, Ok((33, 33, &[33, 44])));
        check(Some("33"), None, Ok((33, 33, &[33, 44])));
        check(Some("web"), Some("video"), Ok((33, 45, &[45, 44])));
        check(Some("web"), Some("7"), Ok((33, 7, &[7, 44])));
        check(Some("5000"), None, Ok((5000, 5000, &[5000])));
        check(Some("nobody-here"), None, Err(FailureCode::UserUnknown));
        check(Some("web"), Some("none"), Err(FailureCode::GroupUnknown));
        let own = rustix::process::geteuid().as_raw();
        check(None, Some("logs"), Ok((own, 44, &[44])));
    }
}
