//! How burn's own traversal hands quantizers over.
//!
//! A visitor or mapper of burn sees parameters, not the modules that own them. [`TensorQuantizer`] therefore looks, when
//! it is traversed, whether a search is under way on this thread, and if so gives a copy of itself to it (visit) or takes
//! its replacement from it (map). The search keeps the path, as an ordinary visitor does. Only plain data crosses the
//! thread-local, and a guard takes it away even if a traversal panics.

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor};

use super::TensorQuantizer;

/// One step of a path: the name of a field, and the struct that owns it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) container: String,
}

impl Frame {
    pub(crate) fn new(name: &str, container: &str) -> Self {
        Self { name: name.into(), container: container.into() }
    }

    /// The type name of a struct, without burn's prefix for the kind of container.
    pub(crate) fn type_name(&self) -> &str {
        self.container.split_once(':').map_or(self.container.as_str(), |(_, name)| name)
    }
}

/// A quantizer, its name, and the type name of the struct it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) container: String,
    pub(crate) quantizer: TensorQuantizer,
}

#[derive(Default)]
struct Search {
    path: Vec<Frame>,
    found: Vec<Found>,
    replacements: BTreeMap<String, TensorQuantizer>,
}

thread_local! {
    static SEARCH: RefCell<Option<Search>> = const { RefCell::new(None) };
}

/// Ends a search when it goes out of scope.
struct Guard;

impl Guard {
    fn start(search: Search) -> Self {
        SEARCH.with_borrow_mut(|slot| *slot = Some(search));
        Guard
    }

    fn finish(self) -> Search {
        SEARCH.with_borrow_mut(Option::take).expect("the search lasts as long as its guard")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SEARCH.with_borrow_mut(|slot| *slot = None);
    }
}

/// All quantizers of a model, in the order of its fields.
pub(crate) fn collect<M: Module>(model: &M) -> Vec<Found> {
    let guard = Guard::start(Search::default());
    model.visit(&mut Paths);
    guard.finish().found
}

/// Replaces the quantizers that are named; the others stay.
pub(crate) fn replace<M: Module>(model: M, replacements: BTreeMap<String, TensorQuantizer>) -> M {
    let _guard = Guard::start(Search { replacements, ..Search::default() });
    model.map(&mut Paths)
}

/// Called by a quantizer that is visited.
pub(crate) fn visiting(quantizer: &TensorQuantizer) {
    SEARCH.with_borrow_mut(|slot| {
        if let Some(search) = slot {
            let container = search.owner();
            search.found.push(Found { name: quantizer_name(&search.path), container, quantizer: quantizer.clone() });
        }
    });
}

/// Called by a quantizer that is mapped: itself, or its replacement.
pub(crate) fn mapping(quantizer: TensorQuantizer) -> TensorQuantizer {
    SEARCH
        .with_borrow_mut(|slot| {
            let search = slot.as_mut()?;
            search.replacements.remove(&quantizer_name(&search.path))
        })
        .unwrap_or(quantizer)
}

impl Search {
    /// The type name of the struct whose weight or slot the current quantizer serves.
    fn owner(&self) -> String {
        let own = self.path.iter().rev().find(|frame| frame.container != REPARAMETERIZATION);
        own.map(|frame| frame.type_name().to_string()).unwrap_or_default()
    }
}

const REPARAMETERIZATION: &str = "Reparameterization";

/// The name of the quantizer at a path.
///
/// A slot is named by its path. A weight quantizer, which burn keeps below its parameter, stands beside it by name:
/// `fc.weight.weight_quantizer` is called `fc.weight_quantizer`, and that of a parameter `fc.kernel` is
/// `fc.kernel_weight_quantizer`.
pub(crate) fn quantizer_name(path: &[Frame]) -> String {
    let mut names: Vec<String> = path.iter().map(|frame| frame.name.clone()).collect();
    if path.last().is_some_and(|frame| frame.container == REPARAMETERIZATION) {
        names.pop();
        if let Some(field) = names.pop() {
            names.push(if field == "weight" { "weight_quantizer".into() } else { format!("{field}_weight_quantizer") });
        }
    }
    names.join(".")
}

/// Keeps the path of the search under way.
struct Paths;

impl Paths {
    fn enter(name: &str, container: &str) {
        SEARCH.with_borrow_mut(|slot| slot.iter_mut().for_each(|s| s.path.push(Frame::new(name, container))));
    }

    fn exit() {
        SEARCH.with_borrow_mut(|slot| slot.iter_mut().for_each(|s| drop(s.path.pop())));
    }
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, container: &str) {
        Self::enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        Self::exit();
    }
}

impl ModuleMapper for Paths {
    fn enter_module(&mut self, name: &str, container: &str) {
        Self::enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        Self::exit();
    }
}
