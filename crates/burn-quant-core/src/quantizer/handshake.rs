//! How a quantizer makes itself known to a traversal of this project.
//!
//! burn's visitors and mappers see parameters, not the modules that own them, and what is attached to a parameter
//! reaches them through a type-erased wrapper. A quantizer therefore enters and leaves a module of a reserved name when
//! it is traversed. A visitor of this project answers: between the two the quantizer lies in a slot of this thread, and
//! the visitor takes a copy of it (visit) or exchanges it (map). To any other visitor it is a module without
//! parameters.
//!
//! The slot is empty before and after each exchange, so traversals may be nested and may panic.

use std::cell::{Cell, RefCell};

use burn::module::{ModuleMapper, ModuleVisitor};

use super::TensorQuantizer;

/// The name and the container of the reserved module.
const RESERVED: &str = "burn-quant:quantizer";

thread_local! {
    /// Whether the visitor that was just shown the reserved module answered.
    static ANSWERED: Cell<bool> = const { Cell::new(false) };
    static SLOT: RefCell<Option<TensorQuantizer>> = const { RefCell::new(None) };
}

/// Whether a module that a visitor enters or leaves is the reserved one.
pub(crate) fn is_reserved(container: &str) -> bool {
    container == RESERVED
}

/// Says that the visitor which enters the reserved module wants the quantizer.
pub(crate) fn answer() {
    ANSWERED.set(true);
}

/// Takes the quantizer out of the slot, or puts it there.
pub(crate) fn slot() -> &'static std::thread::LocalKey<RefCell<Option<TensorQuantizer>>> {
    &SLOT
}

/// Shows a quantizer to a visitor that knows the handshake.
pub(super) fn visit<V: ModuleVisitor>(quantizer: &TensorQuantizer, visitor: &mut V) {
    visitor.enter_module(RESERVED, RESERVED);
    if ANSWERED.take() {
        SLOT.set(Some(quantizer.clone()));
    }
    visitor.exit_module(RESERVED, RESERVED);
    SLOT.take();
}

/// Hands a quantizer to a mapper that knows the handshake, and returns what it gives back.
pub(super) fn map<M: ModuleMapper>(quantizer: TensorQuantizer, mapper: &mut M) -> TensorQuantizer {
    mapper.enter_module(RESERVED, RESERVED);
    if !ANSWERED.take() {
        mapper.exit_module(RESERVED, RESERVED);
        return quantizer;
    }
    SLOT.set(Some(quantizer));
    mapper.exit_module(RESERVED, RESERVED);
    SLOT.take().expect("a mapper that answers gives a quantizer back")
}
