//! Checkpoints of other frameworks into layers with activation quantizers.

use burn::module::Module;
use burn_pack::Tensor;
use burn_store::{ApplyResult, ModuleAdapter, ModuleContext, ModuleSnapshot, ModuleStore};

use crate::StoreError;

/// Loads a checkpoint of another framework into a model with layers of `burn_quant::nn`, as `load_from` of burn-store
/// does.
///
/// # Errors
///
/// [`StoreError::Checkpoint`] with the words of burn-store, and with what is missing if a weight is transposed or is
/// not found: an adapter in [`QuantLayerAdapter`].
pub fn load_checkpoint<M: Module, S: ModuleStore>(mut model: M, store: &mut S) -> Result<(M, ApplyResult), StoreError> {
    match model.load_from(store) {
        Ok(applied) if applied.errors.is_empty() => Ok((model, applied)),
        Ok(applied) => Err(StoreError::Checkpoint { reason: applied.errors[0].to_string() }),
        Err(error) => Err(StoreError::Checkpoint { reason: error.to_string() }),
    }
}

/// An adapter of `burn-store` for models of `burn_quant::nn`: its layers are shown to the adapter under the names of
/// burn's.
///
/// Adapters decide by the type of a layer, `Linear`, whether its weight is transposed or renamed, and do not know
/// `QuantLinear`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use burn_quant::nn::{Linear, LinearConfig};
/// use burn_quant_store::{QuantLayerAdapter, load_checkpoint};
/// use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
///
/// #[derive(Module, Debug)]
/// struct Net { fc: Linear }
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pytorch.safetensors");
/// let net = || Net { fc: LinearConfig::new(3, 2).init(&Device::flex()) };
/// let trained = net();
/// let mut file = SafetensorsStore::from_file(&path).with_to_adapter(QuantLayerAdapter(BurnToPyTorchAdapter));
/// trained.save_into(&mut file)?; // `fc.weight` is [2, 3] in it, as PyTorch has it
///
/// let mut file = SafetensorsStore::from_file(&path).with_from_adapter(QuantLayerAdapter(PyTorchToBurnAdapter));
/// let (loaded, _) = load_checkpoint(net(), &mut file)?;
/// assert_eq!(loaded.fc.weight.to_data(), trained.fc.weight.to_data());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct QuantLayerAdapter<A>(pub A);

/// The name of burn's layer for one of ours, `Struct:Linear` for `Struct:QuantLinear`; any other name as it is.
fn burns(module_type: &str) -> String {
    match module_type.strip_prefix("Struct:Quant") {
        Some(layer) => format!("Struct:{layer}"),
        None => module_type.into(),
    }
}

impl<A: ModuleAdapter + Clone + 'static> ModuleAdapter for QuantLayerAdapter<A> {
    fn adapt(&self, tensor: Tensor, context: ModuleContext<'_>) -> Tensor {
        let containers: Vec<String> = context.module_type().map(burns).into_iter().collect();
        self.0.adapt(tensor, ModuleContext::new(&containers))
    }

    fn get_alternative_param_name(&self, name: &str, module_type: &str) -> Option<String> {
        self.0.get_alternative_param_name(name, &burns(module_type))
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}
