//! Which addresses a channel may speak to. Whoever can write a URL into the file, or answer for a name in the DNS,
//! must not reach what is only meant for this machine or its network (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anybody's, on the internet.
    Public,
    /// This machine, its network, or its neighbours: only with `allow_private`.
    Private(&'static str),
    /// No single machine: never.
    Nobody(&'static str),
}

/// Says what an address is for. IPv6 addresses that carry an IPv4 address are what that one is.
pub(crate) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// By the registries of IANA for special purposes (RFC 6890).
fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Reach::Nobody("this network"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Reach::Private("a private network"),
        (100, 64..=127, _) => Reach::Private("a provider's own network"),
        (127, ..) => Reach::Private("this machine"),
        (169, 254, _) => Reach::Private("link-local"),
        (192, 0, 0) | (198, 18..=19, _) => Reach::Private("reserved"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Reach::Nobody("for documentation"),
        (224..=239, ..) => Reach::Nobody("multicast"),
        (240..=255, ..) => Reach::Nobody("reserved"),
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if let Some(inner) = embedded(address) {
        return reach_v4(inner);
    }
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private("this machine"),
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nobody("this network"),
        [0x2001, 0xdb8, ..] => Reach::Nobody("for documentation"),
        [0x2001, 0x0000..=0x01ff, ..] => Reach::Private("reserved"),
        [0xfc00..=0xfdff, ..] => Reach::Private("a private network"),
        [0xfe80..=0xfebf, ..] => Reach::Private("link-local"),
        [0xfec0..=0xfeff, ..] => Reach::Private("a private network"),
        [0xff00..=0xffff, ..] => Reach::Nobody("multicast"),
        // All that is given out to anybody is in 2000::/3.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Nobody("reserved"),
    }
}

/// The IPv4 address within: mapped (RFC 4291), compatible (RFC 4291), translated (RFC 6052), 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(join(high, low)),
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// Why a channel may not speak to an address; `None`: it may.
pub(crate) fn refusal(address: IpAddr, allow_private: bool) -> Option<String> {
    match reach(address) {
        Reach::Public => None,
        Reach::Private(_) if allow_private => None,
        Reach::Private(what) => Some(format!(
            "{address} is {what}; set `allow_private: true` for this channel if that is meant"
        )),
        Reach::Nobody(what) => Some(format!("{address} is {what}; nobody can be reached there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_public_addresses_are_open_and_private_ones_on_request() {
        let check = |address: &str, plain: bool, private: bool| {
            let address: IpAddr = address.parse().expect(address);
            assert_eq!(refusal(address, false).is_none(), plain, "{address}");
            assert_eq!(
                refusal(address, true).is_none(),
                private,
                "{address} in private"
            );
        };
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            check(public, true, true);
        }
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "2001::1",
            "198.18.0.1",
        ] {
            check(private, false, true);
        }
        for nobody in [
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "::",
            "ff02::1",
            "192.0.2.1",
            "2001:db8::1",
            "4000::1",
        ] {
            check(nobody, false, false);
        }
    }

    proptest! {
        /// What IPv6 carries of IPv4 is as open as the IPv4 address itself.
        #[test]
        fn a_mapped_address_is_what_it_maps(address: u32) {
            let inner = Ipv4Addr::from(address);
            let mapped = IpAddr::V6(inner.to_ipv6_mapped());
            prop_assert_eq!(reach(mapped), reach(IpAddr::V4(inner)));
        }
    }
}
