//! A fault is planted, diagnosed, and mended by its first finding.

use burn::tensor::{Device, Tensor};
use burn_quant_report::{DiagnoseError, DiagnoseOptions, Diagnosis, FindingKind, diagnose};
use clap::ValueEnum;
use serde::Serialize;

use crate::fault::{Fault, calibrated, in_dtype_of};
use crate::network::Network;

/// A fault, what a diagnosis says of it, and what became of the network by what that says.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The fault.
    pub fault: Fault,
    /// The diagnosis of the network with the fault.
    pub diagnosis: Diagnosis,
    /// The diagnosis of the float network that was quantized with the recipe of the first finding.
    pub mended: Option<Diagnosis>,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct TrialResult {
    /// The fault.
    pub fault: String,
    /// What the first finding is, if there is one.
    pub finding: Option<FindingKind>,
    /// What the first finding is about.
    pub at: Option<String>,
    /// Signal to noise of the output with the fault, in decibels.
    pub planted: Option<f64>,
    /// Signal to noise of the output once it is mended, in decibels.
    pub mended: Option<f64>,
}

impl Trial {
    /// Plants a fault, diagnoses it, and mends it.
    ///
    /// # Errors
    ///
    /// Those of `quantize` and `diagnose`.
    pub fn run(fault: Fault, device: &Device) -> Result<Self, DiagnoseError> {
        device.seed(1);
        let batches = Network::batches(device);
        let planted = fault.plant(&batches, device)?;
        let name = name(fault);
        let options = || DiagnoseOptions::new().with_title(format!("Five linear layers: {name}"));
        let look = |quantized: &Network, options| diagnose(&planted.float, quantized, &batches, run_batch, options);
        let diagnosis = look(&planted.quantized, options())?;
        let Some(first) = diagnosis.findings.first() else { return Ok(Self { fault, diagnosis, mended: None }) };
        let mended = calibrated(&planted.float, &first.mend(&planted.config), &batches)?;
        let mended = look(&mended, options())?;
        // once more, now that there is something to compare with
        let recipes = [diagnosis.as_recipe("as it was found"), mended.as_recipe("with what the first finding says")];
        let diagnosis = look(&planted.quantized, options().with_recipes(recipes))?;
        Ok(Self { fault, diagnosis, mended: Some(mended) })
    }

    /// Returns a line of the report.
    pub fn result(&self) -> TrialResult {
        let first = self.diagnosis.findings.first();
        TrialResult {
            fault: name(self.fault),
            finding: first.map(|finding| finding.kind),
            at: first.map(|finding| finding.at.clone()),
            planted: self.diagnosis.overview.output_sqnr,
            mended: self.mended.as_ref().and_then(|mended| mended.overview.output_sqnr),
        }
    }
}

fn run_batch(network: &Network, batch: &&Tensor<2>) -> Tensor<2> {
    network.forward(in_dtype_of(network, batch))
}

/// The name of a fault on the command line.
fn name(fault: Fault) -> String {
    fault.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
}
