//! Tensors of a model's inputs and outputs: one, a tuple, or several of a kind.

use burn::backend::DispatchTensor;
use burn::backend::ir::{TensorId, TensorIr};
use burn::tensor::{Bool, DType, Device, Float, Int, Tensor};

use crate::GraphError;

/// What goes into a forward pass, or comes out of it: a tensor, or several in a tuple or a vector.
///
/// It is implemented for what models take; implement it for a struct of tensors of yours by way of a tuple.
pub trait Values: Sized {
    /// Returns the tensors on a device, without autodiff.
    fn moved(self, device: &Device) -> Self;

    /// Appends the tensors, in order.
    fn into_tensors(self, to: &mut Vec<AnyTensor>);

    /// Takes as many tensors as there are, in order.
    ///
    /// # Errors
    ///
    /// [`GraphError`] if one has another rank or kind, or one is missing.
    fn from_tensors(from: &mut Tensors) -> Result<Self, GraphError>;
}

/// A tensor of any rank and kind.
#[derive(Clone)]
pub struct AnyTensor {
    pub(crate) tensor: DispatchTensor,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
    pub(crate) kind: &'static str,
}

/// The outputs of a graph, which are taken one after the other.
pub struct Tensors {
    pub(crate) rest: std::vec::IntoIter<AnyTensor>,
    pub(crate) taken: usize,
}

impl AnyTensor {
    /// The id of a tensor on a capture device.
    pub(crate) fn id(self) -> Result<TensorId, String> {
        use burn::backend::{BackendTensor, Capture, DispatchKindConversion};
        let tensor = <DispatchTensor as DispatchKindConversion<Capture>>::try_into_backend(self.tensor)?;
        Ok(match tensor {
            BackendTensor::Float(tensor) => tensor.id(),
            BackendTensor::Int(tensor) => tensor.id(),
            BackendTensor::Bool(tensor) => tensor.id(),
            _ => return Err("a quantized tensor".into()),
        })
    }
}

impl Tensors {
    pub(crate) fn new(tensors: Vec<AnyTensor>) -> Self {
        Self { rest: tensors.into_iter(), taken: 0 }
    }

    fn next(&mut self) -> Result<(usize, AnyTensor), GraphError> {
        let index = self.taken;
        self.taken += 1;
        let found =
            self.rest.next().ok_or(GraphError::Count { boundary: "outputs", expected: index, found: self.taken })?;
        Ok((index, found))
    }
}

/// A kind of tensors, in words.
trait Kind {
    const NAME: &'static str;
}

impl Kind for Float {
    const NAME: &'static str = "floats";
}

impl Kind for Int {
    const NAME: &'static str = "integers";
}

impl Kind for Bool {
    const NAME: &'static str = "booleans";
}

macro_rules! values {
    ($($kind:ty),*) => {$(
        impl<const D: usize> Values for Tensor<D, $kind> {
            fn moved(self, device: &Device) -> Self {
                self.without_autodiff().to_device(device)
            }

            fn into_tensors(self, to: &mut Vec<AnyTensor>) {
                let (shape, dtype, kind) = (self.dims().to_vec(), self.dtype(), <$kind as Kind>::NAME);
                to.push(AnyTensor { tensor: self.into_dispatch(), shape, dtype, kind });
            }

            fn from_tensors(from: &mut Tensors) -> Result<Self, GraphError> {
                let (index, found) = from.next()?;
                if found.shape.len() != D || found.kind != <$kind as Kind>::NAME {
                    let words = |rank: usize, kind: &str| format!("{rank} axes of {kind}");
                    let expected = words(D, <$kind as Kind>::NAME);
                    return Err(GraphError::OutputType { index, expected, found: words(found.shape.len(), found.kind) });
                }
                Ok(Tensor::from_dispatch(found.tensor))
            }
        }

        impl<const D: usize> From<Tensor<D, $kind>> for AnyTensor {
            fn from(tensor: Tensor<D, $kind>) -> Self {
                let mut tensors = Vec::new();
                tensor.into_tensors(&mut tensors);
                tensors.swap_remove(0)
            }
        }
    )*};
}

values!(Float, Int, Bool);

impl AnyTensor {
    /// Zeros, as an example of a tensor.
    pub(crate) fn example(tensor: &TensorIr, device: &Device) -> Self {
        let (kind, dtype) = (tensor.dtype, tensor.dtype);
        macro_rules! of_rank {
            ($rank:literal) => {{
                let shape: [usize; $rank] = tensor.shape.as_slice().try_into().expect("the rank was looked at");
                match kind {
                    DType::Bool(_) => Tensor::<$rank, Bool>::zeros(shape, (device, dtype)).into(),
                    _ if kind.is_float() => Tensor::<$rank>::zeros(shape, (device, dtype)).into(),
                    _ => Tensor::<$rank, Int>::zeros(shape, (device, dtype)).into(),
                }
            }};
        }
        match tensor.shape.len() {
            1 => of_rank!(1),
            2 => of_rank!(2),
            3 => of_rank!(3),
            4 => of_rank!(4),
            5 => of_rank!(5),
            6 => of_rank!(6),
            rank => panic!("graphs have tensors of 1 to 6 axes, found {rank}"),
        }
    }

    /// The tensor, of the rank and kind that it is known to have.
    pub(crate) fn ranked<T: Values>(self) -> T {
        T::from_tensors(&mut Tensors::new(vec![self])).expect("the rank and the kind of the operation")
    }
}

/// Runs an expression with a tensor of any rank and kind as one of its own.
macro_rules! with_tensor {
    ($any:expr, $x:ident => $body:expr) => {{
        let any: $crate::values::AnyTensor = $any;
        macro_rules! of_rank {
            ($rank:literal) => {
                match any.kind {
                    "floats" => {
                        let $x: burn::tensor::Tensor<$rank> = any.ranked();
                        $body
                    }
                    "integers" => {
                        let $x: burn::tensor::Tensor<$rank, burn::tensor::Int> = any.ranked();
                        $body
                    }
                    _ => {
                        let $x: burn::tensor::Tensor<$rank, burn::tensor::Bool> = any.ranked();
                        $body
                    }
                }
            };
        }
        match any.shape.len() {
            1 => of_rank!(1),
            2 => of_rank!(2),
            3 => of_rank!(3),
            4 => of_rank!(4),
            5 => of_rank!(5),
            6 => of_rank!(6),
            rank => panic!("graphs have tensors of 1 to 6 axes, found {rank}"),
        }
    }};
}
pub(crate) use with_tensor;

impl Values for AnyTensor {
    fn moved(self, device: &Device) -> Self {
        with_tensor!(self, x => x.moved(device).into())
    }

    fn into_tensors(self, to: &mut Vec<AnyTensor>) {
        to.push(self);
    }

    fn from_tensors(from: &mut Tensors) -> Result<Self, GraphError> {
        Ok(from.next()?.1)
    }
}

impl<T: Values> Values for Vec<T> {
    fn moved(self, device: &Device) -> Self {
        self.into_iter().map(|value| value.moved(device)).collect()
    }

    fn into_tensors(self, to: &mut Vec<AnyTensor>) {
        self.into_iter().for_each(|value| value.into_tensors(to));
    }

    /// All that are left.
    fn from_tensors(from: &mut Tensors) -> Result<Self, GraphError> {
        let mut values = Vec::new();
        while from.rest.len() > 0 {
            values.push(T::from_tensors(from)?);
        }
        Ok(values)
    }
}

macro_rules! tuples {
    ($(($($name:ident),+))*) => {$(
        #[allow(non_snake_case)]
        impl<$($name: Values),+> Values for ($($name,)+) {
            fn moved(self, device: &Device) -> Self {
                let ($($name,)+) = self;
                ($($name.moved(device),)+)
            }

            fn into_tensors(self, to: &mut Vec<AnyTensor>) {
                let ($($name,)+) = self;
                $($name.into_tensors(to);)+
            }

            fn from_tensors(from: &mut Tensors) -> Result<Self, GraphError> {
                Ok(($($name::from_tensors(from)?,)+))
            }
        }
    )*};
}

tuples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) }
