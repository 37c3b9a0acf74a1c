//! The suite that every log engine passes.
