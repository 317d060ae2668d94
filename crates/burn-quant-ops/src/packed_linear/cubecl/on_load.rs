//! Many rows without the weight as floats: cubek's matrix products, for which codes become floats as they are loaded.
//!
//! ```text
//! global memory   x [rows, inputs]          words, scales
//!                      │                         │  a vector of inputs of an output: `points · step`
//! shared memory   a tile of x               a tile of W, floats
//! registers            └──────── product ────────┘            matrix units where the device has them
//! ```
//!
//! Source: cubek-matmul 0.3, `MatmulArgs`: a product asks its operands for vectors, whatever they are made of.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{ops::numeric::empty_device_dtype, tensor::CubeTensor};
use burn_quant_numerics::packed::{PANEL, STEP};
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use cubecl::std::tensor::launch::ViewArg;
use cubecl::std::tensor::layout::linear::LinearView;
use cubecl::std::tensor::layout::{Layout, LayoutExpand};
use cubecl::std::tensor::{View, ViewMut, ViewOperations, ViewOperationsExpand};
use cubek::matmul::definition::{MatmulGlobalElems, MatmulProblem, MatmulSetupError, MatmulVectorSizes};
use cubek::matmul::multi_level::args::{BatchedCoords, MatmulArgs};
use cubek::matmul::multi_level::components::global::memory::{GlobalLayout, GlobalLayoutConfig, GlobalLayoutLaunch};
use cubek::matmul::multi_level::definition::Blueprint;
use cubek::matmul::multi_level::{BatchMatmulRoutine, launch_kernel};
use cubek::matmul::routine::BlueprintStrategy;

use super::decode::{Form, Matrix, factor_of, matrix, points_at, step_of};
use crate::fake_quant::cubecl::vector_size;
use crate::packed_linear::PackedLayout;

/// `x · W` by one of cubek's products, in the dtype of `x`, `[rows, inputs]`.
///
/// # Errors
///
/// If the device has not what the product needs, or there is nothing to multiply.
pub(super) fn multiply<A: BatchMatmulRoutine<()>>(
    x: CubeTensor,
    words: CubeTensor,
    ranges: CubeTensor,
    scale_codes: CubeTensor,
    layout: PackedLayout,
    strategy: &BlueprintStrategy<(), A>,
) -> Result<CubeTensor, MatmulSetupError> {
    let x = into_contiguous(x);
    let (rows, inputs, outputs) = (x.meta.shape()[0], layout.inputs(), layout.outputs());
    let client = x.client.clone();
    let y = empty_device_dtype(client.clone(), x.device.clone(), [rows, outputs].into(), x.dtype);
    let dtype = dtype_to_storage_type(x.dtype);
    let address = x.required_address_type().max(words.required_address_type()).max(y.required_address_type());
    let problem = MatmulProblem::from_shapes_and_strides(
        [rows, inputs].into(),
        [inputs, outputs].into(),
        [rows, outputs].into(),
        [inputs, 1].as_slice().into(),
        [1, inputs].as_slice().into(), // vectors are of inputs, as steps are
        [outputs, 1].as_slice().into(),
        MatmulGlobalElems { lhs: dtype, rhs: dtype, out: dtype },
        address,
        None,
        None,
    )?;
    let steps = inputs.is_multiple_of(STEP) && layout.block().is_multiple_of(STEP);
    let vector_sizes = MatmulVectorSizes {
        lhs: vector_size(&[&x], x.meta.shape()),
        rhs: if steps { STEP } else { 1 },
        out: vector_size(&[&y], y.meta.shape()),
    };
    let settings = A::device_settings(&client, vector_sizes);
    let expanded = A::expand_blueprint(&problem, &settings, strategy)?;
    let launch = A::prepare(&problem, &settings, expanded)?;
    let blueprint = &launch.blueprint;

    let (x, out) = (x.binding(), y.clone().binding());
    let of_x = GlobalLayoutLaunch::from_handle(&x, launch.vector_sizes.lhs, blueprint.lhs_global_layout_config());
    let codes = CodesLaunch::new(
        words.into_linear_view(),
        ranges.into_linear_view(),
        scale_codes.into_linear_view(),
        matrix(layout),
        Form::of(layout),
        launch.vector_sizes.rhs,
    );
    let input = OperandsLaunch::new(ViewArg::new_tensor::<GlobalLayout>(x.into_tensor_arg(), of_x), codes);
    let of_y = GlobalLayoutLaunch::from_handle(&out, launch.vector_sizes.out, blueprint.out_global_layout_config());
    let output = ProductLaunch::new(ViewArg::new_tensor::<GlobalLayout>(out.into_tensor_arg(), of_y));
    launch_kernel::<OnLoad, A>(&client, input, output, (), launch)?;
    Ok(y)
}

/// The arguments of such products.
#[derive(Clone)]
struct OnLoad;

/// What is multiplied.
#[derive(CubeType, CubeLaunch, Clone)]
#[expand(derive(Clone))]
struct Operands<Lhs: CubePrimitive> {
    x: View<'static, Lhs, BatchedCoords>,
    weight: Codes,
}

/// What is written.
#[derive(CubeType, CubeLaunch, Clone)]
#[expand(derive(Clone))]
struct Product<EO: CubePrimitive> {
    y: ViewMut<'static, EO, BatchedCoords>,
}

/// What a product is told of its operands.
#[derive(CubeType, Clone)]
#[expand(derive(Clone))]
struct Arguments<Lhs: CubePrimitive, EO: CubePrimitive> {
    operands: Operands<Lhs>,
    product: Product<EO>,
    #[cube(comptime)]
    config: GlobalLayoutConfig,
}

/// A weight that is read as floats.
#[derive(CubeType, CubeLaunch, Clone)]
#[expand(derive(Clone))]
struct Codes {
    words: LinearView<'static, u32>,
    ranges: LinearView<'static, f32>,
    scale_codes: LinearView<'static, u32>,
    matrix: Matrix,
    #[cube(comptime)]
    form: Form,
    /// Inputs that are read at once.
    #[cube(comptime)]
    #[allow(dead_code)] // read as the kernel is compiled
    vector: VectorSize,
}

/// Inputs and outputs as they are, and whether they are within the weight.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Inside {
    inputs: u32,
    outputs: u32,
    #[cube(comptime)]
    config: GlobalLayoutConfig,
}

#[cube]
impl Layout for Inside {
    type Coordinates = BatchedCoords;
    type SourceCoordinates = BatchedCoords;

    fn to_source_pos(&self, pos: Self::Coordinates) -> BatchedCoords {
        pos
    }

    fn to_source_pos_checked(&self, pos: Self::Coordinates) -> (BatchedCoords, bool) {
        (pos, self.is_in_bounds(pos))
    }

    fn shape(&self) -> Self::Coordinates {
        (1usize.runtime(), self.inputs, self.outputs)
    }

    fn is_in_bounds(&self, pos: Self::Coordinates) -> bool {
        let (_, input, output) = pos;
        let config = self.config.comptime();
        match (config.check_row_bounds, config.check_col_bounds) {
            (true, true) => input < self.inputs && output < self.outputs,
            (true, false) => input < self.inputs,
            (false, true) => output < self.outputs,
            (false, false) => true.runtime(),
        }
    }
}

/// The values of inputs of an output, from one on.
#[cube]
fn read<E: CubePrimitive>(codes: &Codes, pos: BatchedCoords) -> E {
    let (_, input, output) = pos;
    let form = codes.form.comptime();
    let matrix = codes.matrix;
    let (input, output) = (input as usize, output as usize);
    let (panel, column) = (output / PANEL, output % PANEL);
    let block = input / matrix.block;
    let place = block * matrix.padded_block + (input - block * matrix.block);
    let scale = (panel * matrix.blocks + block) * PANEL + column;
    let factor = factor_of(step_of(&codes.ranges, &codes.scale_codes, scale, &matrix, form), form);
    let points = points_at::<E::Size>(&codes.words, panel, place, column, &matrix, form);
    E::cast_from(points * Vector::new(factor))
}

/// The same, or `otherwise` beyond the weight.
#[cube]
fn read_inside<E: CubePrimitive>(codes: &Codes, pos: BatchedCoords, otherwise: E) -> E {
    let inside = is_inside(codes, pos);
    let (batch, input, output) = pos;
    let pos = (batch, select(inside, input, 0u32), select(inside, output, 0u32));
    select(inside, read::<E>(codes, pos), otherwise)
}

#[cube]
fn is_inside(codes: &Codes, pos: BatchedCoords) -> bool {
    let (_, input, output) = pos;
    (input as usize) < codes.matrix.inputs && (output as usize) < codes.matrix.outputs
}

#[cube]
fn shape_of(codes: &Codes) -> BatchedCoords {
    (1usize.runtime(), codes.matrix.inputs as u32, codes.matrix.outputs as u32)
}

impl Vectorized for Codes {}

impl VectorizedExpand for CodesExpand {
    fn __expand_vector_size_method(&self, _scope: &Scope) -> VectorSize {
        self.vector
    }
}

type Position = <BatchedCoords as CubeType>::ExpandType;

impl<E: CubePrimitive> ViewOperations<E, BatchedCoords> for Codes {}

impl<E: CubePrimitive> ViewOperationsExpand<E, BatchedCoords> for CodesExpand {
    fn __expand_read_method(&self, scope: &Scope, pos: Position) -> E::ExpandType {
        read::expand::<E>(scope, self, pos)
    }

    fn __expand_read_checked_method(&self, scope: &Scope, pos: Position) -> E::ExpandType {
        let zero = E::__expand_cast_from(scope, 0.into());
        read_inside::expand::<E>(scope, self, pos, zero)
    }

    fn __expand_read_masked_method(&self, scope: &Scope, pos: Position, value: E::ExpandType) -> E::ExpandType {
        read_inside::expand::<E>(scope, self, pos, value)
    }

    fn __expand_read_unchecked_method(&self, scope: &Scope, pos: Position) -> E::ExpandType {
        read::expand::<E>(scope, self, pos)
    }

    fn __expand_as_linear_slice_method(&self, _: &Scope, _: Position, _: Position) -> &SliceExpand<E> {
        unreachable!("codes are no floats: products that copy memory are not asked for")
    }

    fn __expand_tensor_map_load_method(
        &self,
        _: &Scope,
        _: &NativeExpand<Barrier>,
        _: &mut SliceExpand<E>,
        _: Position,
    ) {
        unreachable!("codes are no floats: products that copy memory are not asked for")
    }

    fn __expand_shape_method(&self, scope: &Scope) -> Position {
        shape_of::expand(scope, self)
    }

    fn __expand_is_in_bounds_method(&self, scope: &Scope, pos: Position) -> NativeExpand<bool> {
        is_inside::expand(scope, self, pos)
    }
}

#[cube]
impl MatmulArgs for OnLoad {
    type Input<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive> = Operands<Lhs>;
    type Output<EO: CubePrimitive> = Product<EO>;
    type Config = ();
    type State<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive> = Arguments<Lhs, EO>;

    fn init_state<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        input: &Self::Input<Lhs, Rhs, EO>,
        output: &mut Self::Output<EO>,
        _config: (),
        #[comptime] _lhs_layout_config: GlobalLayoutConfig,
        #[comptime] rhs_layout_config: GlobalLayoutConfig,
        #[comptime] _out_layout_config: GlobalLayoutConfig,
    ) -> Self::State<Lhs, Rhs, EO> {
        Arguments::<Lhs, EO> { operands: input.clone(), product: output.clone(), config: rhs_layout_config }
    }

    fn view_lhs<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        state: &Self::State<Lhs, Rhs, EO>,
    ) -> View<'_, Lhs, BatchedCoords> {
        state.operands.x
    }

    fn batch_lhs<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<Lhs, Rhs, EO>,
        _batch: usize,
    ) -> usize {
        0usize.runtime()
    }

    fn view_rhs<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        state: &Self::State<Lhs, Rhs, EO>,
    ) -> View<'_, Rhs, BatchedCoords> {
        let matrix = state.operands.weight.matrix;
        let inside =
            Inside { inputs: matrix.inputs as u32, outputs: matrix.outputs as u32, config: state.config.comptime() };
        View::new::<Codes, BatchedCoords>(state.operands.weight.clone(), inside)
    }

    fn batch_rhs<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<Lhs, Rhs, EO>,
        _batch: usize,
    ) -> usize {
        0usize.runtime()
    }

    fn view_acc<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<Lhs, Rhs, EO>,
    ) -> ComptimeOption<View<'_, EO, BatchedCoords>> {
        ComptimeOption::new_None()
    }

    fn batch_acc<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<Lhs, Rhs, EO>,
        batch: usize,
    ) -> usize {
        batch
    }

    fn view_out<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        state: &Self::State<Lhs, Rhs, EO>,
    ) -> ViewMut<'_, EO, BatchedCoords> {
        state.product.y
    }

    fn batch_out<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(
        _state: &Self::State<Lhs, Rhs, EO>,
        _batch: usize,
    ) -> usize {
        0usize.runtime()
    }

    fn runtime_config<Lhs: CubePrimitive, Rhs: CubePrimitive, EO: CubePrimitive>(_state: &Self::State<Lhs, Rhs, EO>) {}
}
