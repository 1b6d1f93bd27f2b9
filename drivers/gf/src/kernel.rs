//! Which instructions multiply: chosen once, at run time, from what the processor has.

use std::sync::OnceLock;

/// One way to multiply a matrix by byte vectors. All give the same bytes; they differ in speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Two table look-ups of 16 entries a byte, on any machine.
    Scalar,
    /// The same look-ups 16 bytes at a time (`pshufb`).
    Ssse3,
    /// The same look-ups 32 bytes at a time.
    Avx2,
    /// One affine transformation (`vgf2p8affineqb`) for 32 bytes. Twice the width gains nothing: the
    /// loop waits for memory (docs/decisions/0002-erasure-coding.md).
    Gfni,
}

impl Kernel {
    /// Every kernel, slowest first.
    pub const ALL: [Kernel; 4] = [Kernel::Scalar, Kernel::Ssse3, Kernel::Avx2, Kernel::Gfni];

    /// Whether this machine can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Kernel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Ssse3 => is_x86_feature_detected!("ssse3"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Gfni => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest kernel of this machine.
    #[must_use]
    pub fn best() -> Kernel {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            let mut available = Kernel::ALL.into_iter().rev().filter(|k| k.is_available());
            available.next().unwrap_or(Kernel::Scalar)
        })
    }
}
