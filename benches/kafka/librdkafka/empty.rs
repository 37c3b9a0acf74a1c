//! Nothing: only the manifest beside this file is used.
