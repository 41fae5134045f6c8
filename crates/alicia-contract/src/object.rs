//! Reading a message as the type of its topic.
//!
//! serde reads a struct out of a list as well: `[]` would be a request with every default, which for `stop` is the
//! whole fleet. On the wire a struct is an object and nothing else.

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde_json::Value;

/// Reads a value as a type of this crate, with structs as objects only.
///
/// # Errors
/// What was found and what was expected.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(ObjectsOnly(value))
}

/// A deserializer that gives a struct its fields by name, never by their order. What lies inside the outermost value
/// is read as serde does it.
#[derive(Debug, Clone, Copy)]
pub struct ObjectsOnly<D>(pub D);

macro_rules! pass_on {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.0.$method(visitor)
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectsOnly<D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::orchestrator::{FleetRequest, Verb};

    #[test]
    fn a_list_is_no_struct() {
        let nothing: FleetRequest = read(&json!({})).expect("every field has a default");
        assert_eq!(nothing, FleetRequest::default());
        for wrong in [json!([]), json!([["api"]]), json!(null), json!(1)] {
            let error = read::<FleetRequest>(&wrong).expect_err("no object");
            assert!(error.to_string().contains("FleetRequest"), "{error}");
        }
    }

    #[test]
    fn what_is_no_struct_is_read_as_ever() {
        assert_eq!(read::<Vec<u8>>(&json!([1, 2])).expect("a list"), [1, 2]);
        assert_eq!(read::<Verb>(&json!("stop")).expect("a verb"), Verb::Stop);
        assert_eq!(read::<Option<u8>>(&json!(null)).expect("none"), None);
        assert_eq!(read::<Value>(&json!([])).expect("anything"), json!([]));
    }
}
