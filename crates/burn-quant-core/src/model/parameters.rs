//! Values of parameters, read and replaced by path.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::module::{Module, Param, ParamId, Reparameterizer};
use burn::tensor::Tensor;

use super::{Map, ModelIndex, Path, Visit, map, visit};
use crate::quantizer::AnyTensor;
use crate::quantizer::TensorQuantizer;
use crate::quantizer::parameter::in_place_of;

/// Parameters of a model before any reparameterization, by path.
#[derive(Debug, Default)]
pub struct Parameters {
    wanted: HashSet<String>,
    found: HashMap<String, AnyTensor>,
    /// Those that are here and not in the model any more.
    taken: HashSet<String>,
}

impl Parameters {
    /// Reads the parameters at these paths; values are shared with the model.
    pub fn of<M: Module>(model: &M, wanted: impl IntoIterator<Item = String>) -> Self {
        let mut parameters = Self { wanted: wanted.into_iter().collect(), ..Self::default() };
        if !parameters.wanted.is_empty() {
            visit(model, &mut parameters);
        }
        parameters
    }

    /// Returns the parameter with this path, if it was asked for and there is one.
    pub fn get(&self, path: &str) -> Option<&AnyTensor> {
        self.found.get(path)
    }

    /// Takes the parameters out of the model that they are from, but for those that are tied to others: here they can
    /// be let go one by one.
    ///
    /// What stays in their place has their shape, dtype and device, and the memory of one element. The model is whole
    /// again when [`Replacements`] are installed that have them all: see [`Parameters::into_taken`].
    pub fn take_out_of<M: Module>(&mut self, model: M, index: &ModelIndex) -> M {
        let mut ids: HashMap<ParamId, usize> = HashMap::new();
        index.parameters().iter().for_each(|parameter| *ids.entry(parameter.id).or_default() += 1);
        let single = index.parameters().iter().filter(|parameter| ids[&parameter.id] == 1);
        let paths = single.map(|parameter| &parameter.path).filter(|path| self.found.contains_key(*path));
        self.taken = paths.cloned().collect();
        if self.taken.is_empty() {
            return model;
        }
        map(model, &mut Take(&self.taken))
    }

    /// Lets a parameter go.
    pub fn remove(&mut self, path: &str) {
        self.found.remove(path);
    }

    /// Returns those that were taken out of the model and not let go, each as one row.
    pub fn into_taken(self) -> impl Iterator<Item = (String, Tensor<1>)> {
        let Self { found, taken, .. } = self;
        found.into_iter().filter(move |(path, _)| taken.contains(path)).map(|(path, value)| (path, value.flat()))
    }

    /// A parameter as one row.
    pub fn vector(&self, path: &str) -> Option<Tensor<1>> {
        self.get(path).map(AnyTensor::flat)
    }
}

impl Visit for Parameters {
    fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
        let path = at.joined();
        if self.wanted.contains(&path) {
            self.found.insert(path, param.base().without_autodiff().into());
        }
    }
}

/// Leaves something small in the place of parameters.
struct Take<'a>(&'a HashSet<String>);

impl Map for Take<'_> {
    fn parameter<const D: usize>(&mut self, at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.0.contains(&at.joined()) {
            return param;
        }
        param.map(|old| {
            let place = Tensor::<D>::zeros([1; D], (&old.device(), old.dtype())).expand(old.dims());
            place.detach().set_require_grad(old.is_require_grad())
        })
    }
}

/// What takes the place of parts of a model: values of parameters, and quantizers.
#[derive(Debug, Default)]
pub struct Replacements {
    /// New values by path; each keeps the shape, dtype and device of the parameter, its id, and whether it is trained.
    pub parameters: HashMap<String, Tensor<1>>,
    /// Quantizers by name.
    pub quantizers: HashMap<String, TensorQuantizer>,
}

impl Replacements {
    /// Replaces them in one pass, and returns the paths of parameters that were tied to others and are not any more.
    ///
    /// Tied parameters have one id. Where only some of them get a new value, these get an id of their own: an optimizer
    /// would take them for one parameter otherwise.
    pub fn install<M: Module>(self, model: M, index: &ModelIndex) -> (M, Vec<String>) {
        let mut ties: HashMap<ParamId, usize> = HashMap::new();
        let changed = |path: &str| self.parameters.contains_key(path);
        for parameter in index.parameters() {
            *ties.entry(parameter.id).or_default() += usize::from(!changed(&parameter.path));
        }
        let mut work = Install { replacements: self, ties, untied: Vec::new() };
        let model = map(model, &mut work);
        (model, work.untied)
    }
}

struct Install {
    replacements: Replacements,
    /// How many parameters of an id keep their values.
    ties: HashMap<ParamId, usize>,
    untied: Vec<String>,
}

impl Map for Install {
    fn parameter<const D: usize>(&mut self, at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.replacements.parameters.is_empty() {
            return param;
        }
        let path = at.joined();
        let Some(value) = self.replacements.parameters.remove(&path) else { return param };
        let tied = self.ties.get(&param.id).is_some_and(|others| *others > 0);
        let mut replaced = param.map(|old| in_place_of(&old, value.reshape(old.dims())));
        if tied {
            replaced.id = ParamId::new();
            self.untied.push(path);
        }
        replaced
    }

    fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) -> TensorQuantizer {
        self.replacements.quantizers.remove(&at.quantizer_name()).unwrap_or(quantizer)
    }
}

/// Attaches quantizers to the parameters at these paths.
pub fn attach<M: Module>(model: M, quantizers: BTreeMap<String, TensorQuantizer>) -> M {
    if quantizers.is_empty() {
        return model;
    }
    model.apply_reparameterization(Attach(quantizers))
}

struct Attach(BTreeMap<String, TensorQuantizer>);

impl Reparameterizer for Attach {
    type Reparam = TensorQuantizer;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<TensorQuantizer>) {
        let quantizer = self.0.remove(path);
        (param, quantizer)
    }
}
