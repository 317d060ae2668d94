//! Many rows: the weight becomes floats for a whole product, or tile by tile as it is loaded.
//!
//! Which is faster depends on the device, the shape and the codes: with the feature `autotune` the first product of its
//! kind tries them all, as burn's products do. Without it up to 64 rows are multiplied as codes are loaded, and for
//! more the weight is unpacked, and burn multiplies. Our choice: on software Vulkan, the only device at hand, the first
//! took 0.8 to 0.9 of the time of the second at 16 to 64 rows of `[1024, 1024]`, in 4 and 8 bits, and 0.8 to 1.25 at
//! 128 and 512.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, CubeTuneId, tensor::CubeTensor};
use cubecl::AutotuneKey;
use cubecl::ir::ElemType;
use cubecl::tune::{LocalTuner, Tunable, TunableSet, local_tuner};
use cubek::matmul::definition::MatmulSetupError;
use cubek::matmul::multi_level::components::tile::TileMatmulKind;
use cubek::matmul::multi_level::routines::batch::double_buffering::{
    CyclicDoubleBufferingAlgorithm, DoubleBufferingArgs,
};
use cubek::matmul::multi_level::routines::batch::simple::{SimpleAlgorithm, SimpleArgs};
use cubek::matmul::multi_level::routines::batch::simple_unit::SimpleUnitAlgorithm;
use cubek::matmul::routine::BlueprintStrategy;
use serde::{Deserialize, Serialize};

use super::decode::Form;
use super::{multiply, on_load, unpack};
use crate::packed_linear::PackedLayout;

/// The operands of a product: `x` in the dtype to multiply in, codes and scales.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) x: CubeTensor,
    pub(super) words: CubeTensor,
    pub(super) ranges: CubeTensor,
    pub(super) scale_codes: CubeTensor,
    pub(super) layout: PackedLayout,
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The weight is written as floats, which burn multiplies.
    Unpacked,
    /// The kernel of few rows, f32 alone.
    Codes,
    /// Codes become floats as they are loaded.
    OnLoad(Tiles),
}

/// What multiplies the tiles of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tiles {
    /// Each unit its own, in registers: on every device.
    Units,
    /// The matrix units of the device.
    Matrix(TileMatmulKind),
    /// The same, with the next tile loaded meanwhile.
    MatrixAhead(TileMatmulKind),
}

/// The most rows that the kernel of few rows is tried with, and that are not worth unpacking a weight.
const SOME_ROWS: usize = 64;

impl Way {
    pub(super) const ALL: [Way; 7] = [
        Way::Unpacked,
        Way::Codes,
        Way::OnLoad(Tiles::Units),
        Way::OnLoad(Tiles::Matrix(TileMatmulKind::Cmma)),
        Way::OnLoad(Tiles::Matrix(TileMatmulKind::Mma)),
        Way::OnLoad(Tiles::MatrixAhead(TileMatmulKind::Cmma)),
        Way::OnLoad(Tiles::MatrixAhead(TileMatmulKind::Mma)),
    ];

    /// The product in the dtype of `x`.
    ///
    /// # Errors
    ///
    /// What is missing, if the device or the operands are not of this kind.
    pub(super) fn multiply(self, product: Product) -> Result<CubeTensor, String> {
        let Product { x, words, ranges, scale_codes, layout } = product;
        let rows = x.meta.shape()[0];
        match self {
            Way::Unpacked => {
                let weight = unpack::unpack(words, ranges, scale_codes, layout, x.dtype);
                Ok(CubeBackend::float_matmul(x, weight))
            }
            Way::Codes if rows > SOME_ROWS || x.dtype != DType::F32 || !multiply::fits(rows, layout) => {
                Err("the kernel of few rows multiplies few rows of f32".into())
            }
            Way::Codes => Ok(multiply::multiply(x, words, ranges, scale_codes, layout)),
            Way::OnLoad(_) if x.client.properties().hardware.num_cpu_cores.is_some() => {
                Err("tiles are for GPUs".into()) // cubek multiplies by other means on CubeCL's CPU
            }
            Way::OnLoad(tiles) => {
                tiles.multiply(x, words, ranges, scale_codes, layout).map_err(|error| format!("{error:?}"))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Way::Unpacked => "unpacked",
            Way::Codes => "codes",
            Way::OnLoad(Tiles::Units) => "on_load_units",
            Way::OnLoad(Tiles::Matrix(TileMatmulKind::Cmma)) => "on_load_cmma",
            Way::OnLoad(Tiles::Matrix(_)) => "on_load_mma",
            Way::OnLoad(Tiles::MatrixAhead(TileMatmulKind::Cmma)) => "on_load_double_cmma",
            Way::OnLoad(Tiles::MatrixAhead(_)) => "on_load_double_mma",
        }
    }
}

impl Tiles {
    fn multiply(
        self,
        x: CubeTensor,
        words: CubeTensor,
        ranges: CubeTensor,
        scale_codes: CubeTensor,
        layout: PackedLayout,
    ) -> Result<CubeTensor, MatmulSetupError> {
        match self {
            Tiles::Units => {
                let strategy = BlueprintStrategy::default();
                on_load::multiply::<SimpleUnitAlgorithm>(x, words, ranges, scale_codes, layout, &strategy)
            }
            Tiles::Matrix(tile_matmul) => {
                let strategy = BlueprintStrategy::Inferred(SimpleArgs { tile_matmul, multi_rows: false });
                on_load::multiply::<SimpleAlgorithm>(x, words, ranges, scale_codes, layout, &strategy)
            }
            Tiles::MatrixAhead(tile_matmul) => {
                let strategy = BlueprintStrategy::Inferred(DoubleBufferingArgs { tile_matmul, specialized: false });
                on_load::multiply::<CyclicDoubleBufferingAlgorithm>(x, words, ranges, scale_codes, layout, &strategy)
            }
        }
    }
}

/// What the fastest way depends on.
#[derive(Hash, Eq, PartialEq, Debug, Clone, Serialize, Deserialize, AutotuneKey)]
struct Key {
    #[autotune(anchor)]
    rows: usize,
    inputs: usize,
    outputs: usize,
    block: usize,
    form: Form,
    dtype: ElemType,
}

impl Key {
    fn of(product: &Product) -> Self {
        let Product { x, layout, .. } = product;
        let dtype = dtype_to_storage_type(x.dtype);
        let (inputs, outputs, block) = (layout.inputs(), layout.outputs(), layout.block());
        Key::new(x.meta.shape()[0], inputs, outputs, block, Form::of(*layout), dtype)
    }
}

/// The product by whatever way the device is fastest at, in the dtype of `x`.
pub(super) fn multiply_tuned(product: Product) -> CubeTensor {
    static TUNER: LocalTuner<Key, CubeTuneId> = local_tuner!();

    let client = product.x.client.clone();
    let id = CubeTuneId::new(&client, &product.x.device);
    let ways = TUNER.init(&id, || {
        let ways = TunableSet::new(Key::of, |_: &Key, product: &Product| product.clone());
        Way::ALL
            .into_iter()
            .fold(ways, |ways, way| ways.with(Tunable::new(way.name(), move |product: Product| way.multiply(product))))
    });
    TUNER.execute(&id, &client, ways, product)
}

/// The product, in the dtype of `x`.
pub(super) fn multiply(product: Product) -> CubeTensor {
    let rows = product.x.meta.shape()[0];
    let nothing = rows * product.layout.inputs() * product.layout.outputs() == 0;
    if cfg!(feature = "autotune") && !nothing {
        return multiply_tuned(product);
    }
    let tiles = (!nothing && rows <= SOME_ROWS).then(|| Way::OnLoad(Tiles::Units).multiply(product.clone()));
    match tiles {
        Some(Ok(y)) => y,
        _ => Way::Unpacked.multiply(product).expect("every weight can be unpacked"),
    }
}
