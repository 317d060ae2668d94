//! A graph to read: a line for each operation, and DOT for Graphviz. Free sizes are `n0`, `n1`, ….

use std::fmt;

use burn::backend::ir::{TensorId, TensorIr};

use crate::{Graph, Length, operation_name};

impl Graph {
    /// What a tensor is called: its path, or its number.
    fn label(&self, id: TensorId) -> String {
        match self.name(id) {
            Some(name) => name.into(),
            None => format!("%{}", self.number(id)),
        }
    }

    /// Tensors without a name are counted: inputs first, then values, then results.
    fn number(&self, id: TensorId) -> usize {
        let inputs = self.inputs().iter().map(|input| input.id);
        let values = self.values().keys().copied().filter(|id| self.name(*id).is_none());
        let results = self.operations().iter().flat_map(|operation| operation.outputs().map(|output| output.id));
        inputs.chain(values).chain(results).position(|known| known == id).unwrap_or(usize::MAX)
    }

    fn described(&self, tensor: &TensorIr) -> String {
        format!("{} [{}]", self.label(tensor.id), self.shape_of(tensor, ", "))
    }

    /// The lengths of a tensor: numbers, and products of the free sizes `n0`, `n1`, ….
    fn shape_of(&self, tensor: &TensorIr, between: &str) -> String {
        self.lengths(tensor).iter().map(Length::to_string).collect::<Vec<_>>().join(between)
    }

    /// Returns the graph in the language of Graphviz: `dot -Tsvg`.
    ///
    /// Operations are boxes, with the parameters that they read; arrows are tensors with their shapes, in which the
    /// sizes of free axes are `n0`, `n1` and so on.
    pub fn to_dot(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut dot = String::from("digraph model {\n  node [shape=box, fontname=monospace];\n");
        for (index, input) in self.inputs().iter().enumerate() {
            let label = quoted(&self.described(input));
            dot += &format!("  input{index} [label=\"{label}\", shape=ellipse];\n");
        }
        let producers = self.producers();
        for (index, operation) in self.operations().iter().enumerate() {
            let parameters: Vec<&str> = operation.inputs().filter_map(|input| self.name(input.id)).collect();
            let lines = std::iter::once(operation_name(operation)).chain(parameters.into_iter().map(String::from));
            let label = quoted(&lines.collect::<Vec<_>>().join("\n")).replace('\n', "\\n");
            dot += &format!("  op{index} [label=\"{label}\"];\n");
            for input in operation.inputs() {
                let from = match (producers.get(&input.id), self.inputs().iter().position(|i| i.id == input.id)) {
                    (Some(from), _) => format!("op{from}"),
                    (None, Some(from)) => format!("input{from}"),
                    (None, None) => continue,
                };
                dot += &format!("  {from} -> op{index} [label=\"{}\"];\n", self.shape_of(input, "×"));
            }
        }
        for (index, output) in self.outputs().iter().enumerate() {
            let label = quoted(&self.described(output));
            dot += &format!("  output{index} [label=\"{label}\", shape=ellipse];\n");
            if let Some(from) = producers.get(&output.id) {
                dot += &format!("  op{from} -> output{index};\n");
            }
        }
        dot + "}\n"
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |tensors: &[TensorIr]| tensors.iter().map(|t| self.described(t)).collect::<Vec<_>>().join(", ");
        writeln!(f, "inputs  {}", all(self.inputs()))?;
        for operation in self.operations() {
            let outputs: Vec<String> = operation.outputs().map(|output| self.described(output)).collect();
            let inputs: Vec<String> = operation.inputs().map(|input| self.label(input.id)).collect();
            writeln!(f, "{} = {}({})", outputs.join(", "), operation_name(operation), inputs.join(", "))?;
        }
        write!(f, "outputs {}", all(self.outputs()))
    }
}
