//! Operations in words.

use std::fmt::{self, Write};

use burn::backend::ir::OperationIr;

/// Returns what an operation is called: `Matmul`, `Conv2d`, `burn_quant::fake_quant`.
///
/// Names are those of burn's operations, without their kind; custom operations have their id.
pub fn operation_name(operation: &OperationIr) -> String {
    if let OperationIr::Custom(custom) = operation {
        return custom.id.clone();
    }
    // `Float(F32, Matmul(MatmulOpIr { … })`: the variant of the inner enum, which has no other name
    let mut head = Head(String::new());
    let _ = write!(head, "{operation:?}");
    let head = head.0.split('{').next().unwrap_or_default();
    let words = || head.split(['(', ',', ' ']).filter(|word| !word.is_empty());
    let inner = words().nth_back(1).filter(|_| words().count() > 2);
    inner.or_else(|| words().next()).unwrap_or("Unknown").to_string()
}

/// Keeps the beginning of what is written.
struct Head(String);

impl Write for Head {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.0.contains('{') { Err(fmt::Error) } else { Ok(()) }
    }
}
