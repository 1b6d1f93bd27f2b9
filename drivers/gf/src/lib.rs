//! Arithmetic in GF(2^8), and the one hot loop of erasure coding: a small constant matrix times
//! long byte vectors.
//!
//! The field is GF(2)\[x\] / (x^8 + x^4 + x^3 + x^2 + 1), that is polynomial `0x11d` with generator 2,
//! the usual choice of Reed-Solomon storage codes. [`Product`] holds a matrix prepared for the
//! best kernel that this machine has; every kernel gives the same bytes as the scalar one.
//!
//! Left out on purpose: what the matrix means. Codes live in `coding`.

mod field;
mod kernel;
mod product;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use field::{inv, mul};
pub use kernel::Kernel;
pub use product::Product;
