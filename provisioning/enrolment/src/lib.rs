//! From a one-time token to a certificate, and to its end.

#![forbid(unsafe_code)]
