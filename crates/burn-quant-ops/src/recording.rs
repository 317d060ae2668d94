//! An op as a node of a captured graph: what it is told besides its tensors is a list of numbers, the version first,
//! then its fields in their order.
//!
//! Groups are recorded relative to their tensor: a whole axis stays whole on one of another size.

use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, OperationIr, OperationOutput, ScalarIr, TensorIr};
use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_quant_numerics::{BlockScale, Format, IntFormat, IntSpan, Signedness};
use burn_router::{RouterChannel, RouterClient, RouterTensor};

use crate::{AxisGroups, Groups};

/// The version of what is recorded.
pub(crate) const VERSION: u64 = 1;

/// Something that is written as numbers, and read back for a first input of some shape.
pub(crate) trait Scalars: Sized {
    fn write(&self, to: &mut Vec<ScalarIr>);
    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self>;

    /// The scalars of a node.
    fn scalars(&self) -> Vec<ScalarIr> {
        let mut scalars = vec![ScalarIr::UInt(VERSION)];
        self.write(&mut scalars);
        scalars
    }
}

pub(crate) struct Reader<'a> {
    rest: &'a [ScalarIr],
}

impl<'a> Reader<'a> {
    fn new(scalars: &'a [ScalarIr]) -> Self {
        Self { rest: scalars }
    }

    fn version(&mut self) -> Option<u64> {
        self.number()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn next(&mut self) -> Option<ScalarIr> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        match self.next()? {
            ScalarIr::UInt(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn size(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn three(&mut self) -> Option<[usize; 3]> {
        Some([self.size()?, self.size()?, self.size()?])
    }

    /// One of a list, which was written as its place.
    pub(crate) fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.size()?).cloned()
    }
}

pub(crate) fn number(to: &mut Vec<ScalarIr>, number: usize) {
    to.push(ScalarIr::UInt(number as u64));
}

/// The place of a value in a list that all values of its type are in.
pub(crate) fn place<T: PartialEq>(to: &mut Vec<ScalarIr>, all: &[T], value: &T) {
    number(to, all.iter().position(|known| known == value).expect("all values are listed"));
}

pub(crate) const FLOATS: [Format; 7] =
    [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];
pub(crate) const SIGNS: [Signedness; 2] = [Signedness::Signed, Signedness::Unsigned];
pub(crate) const SPANS: [IntSpan; 2] = [IntSpan::Full, IntSpan::Narrow];
pub(crate) const BLOCKS: [BlockScale; 3] = [BlockScale::Dynamic, BlockScale::Static, BlockScale::StaticFourOverSix];

/// 0 for integers, followed by their bits, sign and span; the place among the others, from 1.
impl Scalars for Format {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        match self {
            Format::Int(int) => {
                number(to, 0);
                number(to, int.bits().into());
                place(to, &SIGNS, &int.signedness());
                place(to, &SPANS, &int.span());
            }
            float => number(to, 1 + FLOATS.iter().position(|known| known == float).expect("all formats are listed")),
        }
    }

    fn read(from: &mut Reader, _shape: &[usize]) -> Option<Self> {
        match from.size()? {
            0 => {
                let bits = from.size()?.try_into().ok()?;
                Some(Format::Int(IntFormat::new(bits, from.one_of(&SIGNS)?, from.one_of(&SPANS)?).ok()?))
            }
            float => FLOATS.get(float - 1).copied(),
        }
    }
}

/// The axes, and for each 0 if it is whole, 1 if each index is a group, and one more than the size of its blocks. A
/// block of all that there is is a whole axis.
impl Scalars for Groups {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        number(to, self.shape().len());
        for (axis, count) in self.counts().iter().enumerate() {
            number(
                to,
                match (count, self.size(axis)) {
                    (1, _) => 0,
                    (_, size) => size + usize::from(size > 1),
                },
            );
        }
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let axes = from.size()?;
        if axes != shape.len() {
            return None;
        }
        let axis = |_| {
            Some(match from.size()? {
                0 => AxisGroups::Whole,
                1 => AxisGroups::Each,
                size => AxisGroups::Blocks(size - 1),
            })
        };
        Some(Groups::new(shape, &(0..axes).map(axis).collect::<Option<Vec<_>>>()?))
    }
}

/// Reads what an op was told; `shape` is that of its first input. `None` if it is another op's, or of another version.
pub(crate) fn read<T: Scalars>(op: &CustomOpIr, shape: &[usize]) -> Option<T> {
    let mut reader = Reader::new(&op.scalars);
    let value = (reader.version()? == VERSION).then(|| T::read(&mut reader, shape))??;
    Some(value).filter(|_| reader.is_empty())
}

/// The same where it is known whose op it is.
pub(crate) fn expect<T: Scalars>(op: &CustomOpIr, shape: &[usize]) -> T {
    read(op, shape).unwrap_or_else(|| panic!("`{}` was recorded by another version of burn-quant", op.id))
}

/// Records an op with one output.
pub(crate) fn record<C: RouterChannel>(
    id: &'static str,
    inputs: Vec<RouterTensor<C::Client>>,
    (shape, dtype): (Shape, DType),
    scalars: Vec<ScalarIr>,
) -> RouterTensor<C::Client> {
    let client = inputs[0].client.clone();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(RouterTensor::into_ir).collect();
    let output = TensorIr::uninit(client.create_empty_handle(), shape, dtype);
    let op = CustomOpIr::with_scalars(id, &inputs, &[output], scalars);
    client.register(OperationIr::Custom(op)).output()
}

/// The tensors of a recorded op, one after the other, on the backend that runs it.
pub(crate) struct Handles<'a, B: BackendIr> {
    all: &'a mut HandleContainer<B::Handle>,
    op: &'a CustomOpIr,
    next: usize,
}

impl<'a, B: BackendIr> Handles<'a, B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    pub(crate) fn new(all: &'a mut HandleContainer<B::Handle>, op: &'a CustomOpIr) -> Self {
        Self { all, op, next: 0 }
    }

    fn next(&mut self) -> &'a TensorIr {
        self.next += 1;
        &self.op.inputs[self.next - 1]
    }

    pub(crate) fn float<const D: usize>(&mut self) -> Tensor<D> {
        let input = self.next();
        let tensor = self.all.get_float_tensor::<B>(input);
        Tensor::from_dispatch(DispatchTensor::from_backend(BackendTensor::Float(tensor)))
    }

    pub(crate) fn int<const D: usize>(&mut self) -> Tensor<D, Int> {
        let input = self.next();
        let tensor = self.all.get_int_tensor::<B>(input);
        Tensor::from_dispatch(DispatchTensor::from_backend(BackendTensor::Int(tensor)))
    }

    /// The one output.
    pub(crate) fn finish<const D: usize>(self, y: Tensor<D>) {
        let Ok(BackendTensor::Float(y)) =
            <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(y.into_dispatch())
        else {
            unreachable!("a result in floats, on the device of the inputs")
        };
        self.all.register_float_tensor::<B>(&self.op.outputs[0].id, y);
    }
}
