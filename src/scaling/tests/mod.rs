//! Behaviour of both loops against a model of brokers.

mod behavior;
mod channel;
mod guards;
mod misread;
mod model;
mod modes;
mod properties;
mod replicas;
mod seen;
mod sentences;
