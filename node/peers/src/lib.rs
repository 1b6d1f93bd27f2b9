//! Stores of other hosts, and our own stores for them.

#![forbid(unsafe_code)]
