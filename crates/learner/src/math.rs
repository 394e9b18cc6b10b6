//! Logarithms, powers and angles without the C library's `libm`.
//!
//! `f64::ln` and its kind are calls into that library, which a preloaded allocator would load into every process, learning or
//! not: nine system calls and as many page faults. The crate `libm` has the same functions as code of its own.

/// The natural logarithm.
pub(crate) fn ln(value: f64) -> f64 {
    libm::log(value)
}

/// The logarithm to the base of two.
pub(crate) fn log2(value: f64) -> f64 {
    libm::log2(value)
}

/// Euler's number to the power of `value`.
pub(crate) fn exp(value: f64) -> f64 {
    libm::exp(value)
}

/// The sine of an angle.
pub(crate) fn sin(angle: f64) -> f64 {
    libm::sin(angle)
}

/// The angle with this sine.
pub(crate) fn asin(sine: f64) -> f64 {
    libm::asin(sine)
}
