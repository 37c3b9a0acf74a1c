//! Sockets and the connection driver: everything that turns bytes on a network into calls on a [`Session`]
//! and back.
//!
//! Invariant: this crate does not know a protocol. A front gives it a [`Session`] (sans-IO), it gives the
//! session bytes, events and time, and writes what the session leaves in the [`Output`].

mod driver;
mod listen;
mod mailbox;
mod output;
mod session;

pub use driver::{CoreIo, Io, drive};
pub use listen::{BindError, SharedListener, accept_loop};
pub use mailbox::Mailbox;
pub use output::Output;
pub use session::{Closed, Session, Turn};
