//! The canonical form, by the examples of RFC 8785, and the shape of a card, by what A2A 1.0 says of it.

use std::time::Duration;

use alicia_contract::discovery::Registration;
use alicia_contract::id::InstanceId;
use alicia_schema::Checked;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::{Caller, Event, Limits, Now, Rank};

/// What the specification says of a card, written down by hand.
pub(crate) const SPECIFIED: &str = include_str!("agent-card-1.0.json");

fn made(registration: Value) -> AgentCard {
    let registration: Registration = serde_json::from_value(registration).expect("a registration");
    let instance = registration.instance.clone();
    let mut registry = Registry::new(Limits::default());
    let caller = Caller {
        name: registration.service.to_string(),
        rank: Rank::Service,
    };
    let now = Now {
        unix: 1.0,
        mono: Duration::ZERO,
    };
    registry
        .apply(Event::Register(Box::new(registration), caller), now)
        .expect("it is taken");
    card(&registry, registry.get(&instance).expect("it is there"))
}

fn plain() -> Value {
    json!({ "service": "met", "instance": InstanceId::from_parts(1, 1) })
}

fn whole() -> Value {
    json!({
        "service": "met", "instance": InstanceId::from_parts(1, 1), "kind": "agent", "version": "2.1.0",
        "endpoints": { "a2a": "http://127.0.0.1:9000/a2a", "http": "http://127.0.0.1:9000" },
        "metadata": { "description": "Knows the weather." },
        "capabilities": [{
            "name": "forecast", "version": "1.2.0", "description": "tells the weather", "tags": ["weather"],
            "input_schema": { "type": "object" }, "cost_usd": 0.25,
        }],
    })
}

#[test]
fn a_card_is_what_the_specification_says() {
    let specified = serde_json::from_str(SPECIFIED).expect("it is JSON");
    let specified = Checked::new(&specified).expect("it is a schema");
    for registration in [plain(), whole()] {
        let card = serde_json::to_value(made(registration)).expect("plain data");
        assert_eq!(specified.faults(&card, ""), [], "{card}");
    }
    // The check itself refuses: a field that the specification does not know, and one that lacks.
    let mut wrong = serde_json::to_value(made(whole())).expect("plain data");
    wrong["url"] = json!("http://127.0.0.1");
    assert!(!specified.fits(&wrong));
    let mut lacking = serde_json::to_value(made(whole())).expect("plain data");
    lacking.as_object_mut().expect("an object").remove("skills");
    assert!(!specified.fits(&lacking));
}

#[test]
fn a_card_says_what_was_registered_and_how_the_instance_is() {
    let card = made(whole());
    assert_eq!(
        (card.name.as_str(), card.version.as_str()),
        ("met", "2.1.0")
    );
    assert_eq!(card.description, "Knows the weather.");
    assert_eq!(
        card.supported_interfaces[0].url,
        "http://127.0.0.1:9000/a2a"
    );
    assert_eq!(card.skills[0].id, "forecast");
    let extension = &card.capabilities.extensions[0];
    assert_eq!(extension.params["presence"], "present");
    assert_eq!(extension.params["standing"], "unknown");
    assert_eq!(extension.params["skills"]["forecast"]["costUsd"], 0.25);
    assert!(made(plain()).supported_interfaces.is_empty());
}

#[test]
fn numbers_are_written_as_ecmascript_does() {
    // Some of RFC 8785, appendix B.
    let check = |bits: u64, expected: &str| {
        let number = f64::from_bits(bits);
        assert_eq!(canonical::write(&json!(number)), expected, "{number:e}");
    };
    check(0x0000_0000_0000_0000, "0");
    check(0x8000_0000_0000_0000, "0");
    check(0x0000_0000_0000_0001, "5e-324");
    check(0x8000_0000_0000_0001, "-5e-324");
    check(0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308");
    check(0x4340_0000_0000_0000, "9007199254740992");
    check(0x4430_0000_0000_0000, "295147905179352830000");
    check(0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22");
    check(0x44b5_2d02_c7e1_4af6, "1e+23");
    check(0x444b_1ae4_d6e2_ef4e, "999999999999999700000");
    check(0x444b_1ae4_d6e2_ef50, "1e+21");
    check(0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7");
    check(0x3eb0_c6f7_a0b5_ed8d, "0.000001");
    check(0x41b3_de43_5555_5555, "333333333.3333333");
    check(0xbecb_f647_612f_3696, "-0.0000033333333333333333");
    assert_eq!(
        canonical::write(&json!([56, -7, 1_000_000])),
        "[56,-7,1000000]"
    );
}

#[test]
fn names_and_texts_are_written_in_one_way() {
    // RFC 8785, section 3.2.3: the order is that of UTF-16.
    let value = json!({
        "\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7,
    });
    let expected = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}";
    assert_eq!(canonical::write(&value), expected);
    let text = json!("\u{20ac}$\u{f}\nA'B\"\\\\\"/");
    assert_eq!(
        canonical::write(&text),
        "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""
    );
    assert_eq!(
        canonical::write(&json!([null, true, {}, []])),
        "[null,true,{},[]]"
    );
}

proptest! {
    /// The canonical text says the same, and is its own canonical text.
    #[test]
    fn the_canonical_form_is_a_fixed_point(number in any::<f64>(), text in any::<String>(), whole in any::<i32>()) {
        prop_assume!(number.is_finite());
        let value = json!({ &text: [number, whole, &text], "b": { "z": 1, "a": null } });
        let written = canonical::write(&value);
        let read: Value = serde_json::from_str(&written).expect("it is JSON");
        prop_assert_eq!(canonical::write(&read), written);
        prop_assert_eq!(read[&text][0].as_f64(), Some(if number == 0.0 { 0.0 } else { number }));
    }
}
