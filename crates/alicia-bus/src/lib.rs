//! The typed bus client: events, state and calls over MQTT 5.
