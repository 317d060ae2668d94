//! Some rows of a quantized table, without quantizing the others.

use burn::module::Reparameterization;
use burn::tensor::{Int, Tensor};
use burn_quant_ops::Groups;

use super::{Buffer, TensorQuantizer};
use crate::config::{BiasSource, RangeSource};

impl TensorQuantizer {
    /// Quantizes rows of a table `[rows, features]`: the same as selecting them from the quantized table,
    /// `[indices, features]`.
    ///
    /// Only the selected rows are quantized, unless what a row becomes depends on the others.
    ///
    /// # Panics
    ///
    /// As [`TensorQuantizer::forward`], and if an index is not one of a row.
    pub fn forward_rows(&self, table: Tensor<2>, rows: Tensor<1, Int>) -> Tensor<2> {
        if let Some(packed) = &self.packed {
            let adapts = self.buffers.has(Buffer::LowRankDown);
            return match packed.rows(rows.clone()).filter(|_| !adapts) {
                Some(vectors) => vectors.cast(table.dtype()),
                None => self.apply(table).select(0, rows),
            };
        }
        match self.of_rows(&table, &rows) {
            Some(quantizer) => quantizer.forward(table.select(0, rows)),
            None => self.forward(table).select(0, rows),
        }
    }

    /// The quantizer of a table of these rows alone; `None` if they depend on others.
    fn of_rows(&self, table: &Tensor<2>, rows: &Tensor<1, Int>) -> Option<Self> {
        let (shape, watched) = (table.dims(), self.tap.get().is_some());
        // of a single row, a range for each row is one for all
        if !self.enabled || watched || shape[0] <= 1 || shape.contains(&0) || self.buffers.has(Buffer::LowRankDown) {
            return None;
        }
        let mut selected = self.clone();
        selected.select_stage(shape, rows)?;
        selected.chain.iter_mut().try_for_each(|stage| stage.select_stage(shape, rows))?;
        Some(selected)
    }

    /// Selects the ranges and biases of rows in one stage of a chain.
    fn select_stage(&mut self, shape: [usize; 2], rows: &Tensor<1, Int>) -> Option<()> {
        if self.config.gradient.learns_range() {
            return None; // a range that is trained gets its gradient from the whole table
        }
        let of_tensor = self.config.has_range_of_tensor();
        let separate = |groups: &Groups| groups.counts()[0] == shape[0];
        let groups = self.groups(&shape);
        match self.config.range {
            RangeSource::Dynamic if of_tensor || !separate(&groups) => return None,
            RangeSource::Static if !of_tensor => self.select_buffer(Buffer::Amax, &groups, rows)?,
            _ if !separate(&groups) && groups.counts()[0] != 1 => return None,
            _ => {}
        }
        if let Some(biases) = self.bias_groups(&shape) {
            match self.config.bias.as_ref().map(|bias| bias.source) {
                Some(BiasSource::Static) => self.select_buffer(Buffer::Bias, &biases, rows)?,
                _ if !separate(&biases) => return None,
                _ => {}
            }
        }
        Some(())
    }

    /// Keeps the values of the groups that these rows are in; `None` if a group holds some rows and not all.
    fn select_buffer(&mut self, buffer: Buffer, groups: &Groups, rows: &Tensor<1, Int>) -> Option<()> {
        let (values, per_row) = (self.buffer(buffer)?, groups.counts()[1]);
        match groups.counts()[0] {
            1 => {}
            all if all == groups.shape()[0] => {
                let chosen = values.reshape([all, per_row]).select(0, rows.clone());
                let len = chosen.dims()[0] * per_row;
                self.set_buffer(buffer, chosen.reshape([len]));
            }
            _ => return None,
        }
        Some(())
    }
}
