//! Files with what burn computes, which ONNX Runtime computes again.

use burn::module::Module;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use burn_quant_graph::Values;
use burn_quant_onnx::{Exporter, OnnxModel};
use safetensors::tensor::{Dtype, TensorView};

/// A model without parameters.
#[derive(Module, Debug)]
pub(crate) struct Nothing;

/// Tensors, as they are compared.
pub(crate) trait Read {
    fn read(self) -> Vec<TensorData>;
}

macro_rules! read {
    ($($kind:ty),*) => {$(
        impl<const D: usize> Read for Tensor<D, $kind> {
            fn read(self) -> Vec<TensorData> {
                vec![self.into_data()]
            }
        }
    )*};
}
read!(burn::tensor::Float, Int, Bool);

impl<A: Read, B: Read> Read for (A, B) {
    fn read(self) -> Vec<TensorData> {
        [self.0.read(), self.1.read()].concat()
    }
}

impl<A: Read, B: Read, C: Read> Read for (A, B, C) {
    fn read(self) -> Vec<TensorData> {
        [self.0.read(), self.1.read(), self.2.read()].concat()
    }
}

impl<A: Read> Read for Vec<A> {
    fn read(self) -> Vec<TensorData> {
        self.into_iter().flat_map(A::read).collect()
    }
}

/// A folder of files and cases.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    count: usize,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), count: 0 }
    }

    /// Writes a file, and beside it inputs with what burn computes of them.
    pub(crate) fn add(&mut self, name: &str, onnx: &OnnxModel, inputs: impl Read, outputs: impl Read) {
        let file = |extension: &str| self.folder.path().join(format!("{name}.{extension}"));
        assert!(!file("onnx").exists(), "{name} is the name of two files");
        onnx.save(file("onnx")).unwrap();
        let named = |kind: &str, names: Vec<&str>, tensors: Vec<TensorData>| -> Vec<(String, TensorData)> {
            assert_eq!(names.len(), tensors.len(), "{name}: {kind}s");
            names.into_iter().map(|name| format!("{kind}.{name}")).zip(tensors).collect()
        };
        let mut tensors = named("input", onnx.input_names(), inputs.read());
        tensors.extend(named("output", onnx.output_names(), outputs.read()));
        let views = tensors.iter().map(|(name, data)| {
            let dtype = match data.dtype() {
                DType::F32 => Dtype::F32,
                DType::I64 => Dtype::I64,
                DType::I32 => Dtype::I32,
                DType::Bool(_) => Dtype::BOOL,
                other => panic!("{name} is {other:?}"),
            };
            (name.as_str(), TensorView::new(dtype, data.shape().to_vec(), data.as_bytes()).unwrap())
        });
        safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &file("safetensors")).unwrap();
        self.count += 1;
    }

    /// Exports a pass for any size of its axis, and adds it with inputs of a third size.
    pub(crate) fn add_any_size<M: Module, I: Values + Read + Clone, O: Values + Read>(
        &mut self,
        name: &str,
        model: &M,
        inputs: impl Fn(usize) -> I,
        forward: impl Fn(&M, I) -> O,
    ) -> OnnxModel {
        let onnx = Exporter::new().export_any_size(model, [3, 5].map(&inputs), &forward).unwrap_or_else(|error| {
            panic!("{name}: {error}");
        });
        self.add(name, &onnx, inputs(4), forward(model, inputs(4)));
        onnx
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Compares, where `BURN_QUANT_ORT` names a Python with onnx, onnxruntime, safetensors and numpy.
    pub(crate) fn check(self) {
        let Some(python) = std::env::var_os("BURN_QUANT_ORT") else {
            println!("not run: BURN_QUANT_ORT names no Python with ONNX Runtime");
            return;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/export-onnx/check.py");
        let checked = std::process::Command::new(python).arg(script).arg(self.folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{text}{}", String::from_utf8_lossy(&checked.stderr));
        assert_eq!(text.lines().count(), self.count + 1, "a line for each file, and one that counts: {text}");
        print!("{text}");
    }
}

/// How many nodes of an operator a file has.
pub(crate) fn count(onnx: &OnnxModel, operator: &str) -> usize {
    onnx.operators().iter().find(|(found, _)| *found == operator).map_or(0, |(_, count)| *count)
}
