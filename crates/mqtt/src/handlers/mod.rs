//! One file for each packet that a client sends.

pub(crate) mod auth;
pub(crate) mod connect;
mod disconnect;
mod puback;
mod pubcomp;
mod publish;
mod pubrec;
mod pubrel;
mod subscribe;
mod unsubscribe;
