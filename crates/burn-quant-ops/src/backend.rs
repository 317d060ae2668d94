//! Which backends burn's dispatch can route our ops to.

use burn::backend::DispatchTensorKind;

/// Whether this crate implements its ops for the backend of a tensor.
///
/// Dispatch panics on a backend that an extension does not list. burn's features are additive, so an application may
/// hold a tensor of a backend that it enabled in burn but not here; such a tensor takes the reference body instead.
pub(crate) fn has_kernel(kind: &DispatchTensorKind) -> bool {
    match kind {
        #[cfg(feature = "cube")]
        DispatchTensorKind::Cube(_) => true,
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => true,
        #[cfg(feature = "autodiff")]
        DispatchTensorKind::Autodiff(inner) => has_kernel(inner),
        #[allow(unreachable_patterns)]
        _ => false,
    }
}
