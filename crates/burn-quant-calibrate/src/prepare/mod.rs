//! Float layers -> float layers that compute the same and are easier to quantize.
//!
//! ```text
//! conv ─ norm           ──► conv'                   fold_batch_norm   a norm's gain goes into the weight it follows
//! layer ─ relu ─ layer  ──► layer' ─ relu ─ layer'  equalize          channels of neighbours get ranges alike
//! ```
//!
//! Both are for layers of float models, before [`quantize`](crate::pipeline::quantize()). It is the caller who says
//! which layers are neighbours: the functions take the layers and return them changed. A captured graph knows them:
//! `GraphModel` of `burn-quant-graph` finds and changes them all.

mod batch_norm;
mod equalize;
mod linear_map;

pub use batch_norm::fold_batch_norm;
pub use equalize::equalize;
pub use linear_map::LinearMap;
