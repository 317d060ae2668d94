//! ModelOpt's recipes, read as YAML: what they import is put in place, and the rest is as in JSON.
//!
//! ```text
//! imports: { fp8: configs/numerics/fp8, ... }      names for other files
//! quantize:
//!   quant_cfg:
//!     - $import: disable_all                       a file with an entry, or with a list of entries
//!     - quantizer_name: '*weight_quantizer'
//!       cfg: { $import: fp8, axis: 0 }             a file with attributes; those that are written here win
//! ```
//!
//! A file that is a list has its imports in a document of their own, before it.
//!
//! Source: ModelOpt 0.47, `modelopt_recipes`.

use serde_json::{Map, Value};

use super::config;
use super::problem::{Problem, object, problem, wrong};
use crate::config::QuantConfig;
use burn_quant_core::error::{ImportProblem, QuantError};

/// Files that import one another may be so deep.
const DEEPEST: usize = 16;

impl QuantConfig {
    /// Reads a recipe of ModelOpt in YAML.
    ///
    /// `import` gives the text of a file by the path that the recipe's `imports` has, such as `configs/numerics/fp8`: a
    /// file of ModelOpt's folder `modelopt_recipes`, with `.yaml` after it.
    ///
    /// # Errors
    ///
    /// [`QuantError::ModelOpt`] with the place in the recipe and the [`ImportProblem`].
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::{QuantConfig, QuantizerConfig, Rule};
    ///
    /// let recipe = "
    /// imports: { fp8: configs/numerics/fp8 }
    /// quantize:
    ///   algorithm: max
    ///   quant_cfg:
    ///     - { quantizer_name: '*weight_quantizer', cfg: { $import: fp8 } }
    /// ";
    /// // or: `|path| std::fs::read_to_string(folder.join(format!("{path}.yaml"))).map_err(|e| e.to_string())`
    /// let config = QuantConfig::from_modelopt_yaml(recipe, |_| Ok("num_bits: e4m3".into()))?;
    /// assert_eq!(config.rules, [Rule::set("*weight_quantizer", QuantizerConfig::e4m3()).one_of("quant_cfg")]);
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn from_modelopt_yaml(
        recipe: &str,
        mut import: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, QuantError> {
        read(recipe, &mut import).map_err(|(at, problem)| QuantError::ModelOpt { at, problem })
    }
}

fn read(recipe: &str, import: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<QuantConfig, Problem> {
    let recipe = resolved("$", recipe, import, 0)?;
    let mut top = object("$", &recipe)?.clone();
    top.remove("metadata");
    let Some(quantize) = top.remove("quantize") else { return config(&Value::Object(top)) };
    match top.keys().next() {
        None => config(&quantize),
        Some(key) => problem("$", ImportProblem::UnknownKey { key: key.clone() }),
    }
}

/// The content of a file, with everything that it imports.
fn resolved(
    at: &str,
    text: &str,
    import: &mut dyn FnMut(&str) -> Result<String, String>,
    depth: usize,
) -> Result<Value, Problem> {
    let not_yaml = |reason: String| (at.to_string(), ImportProblem::NotYaml { reason });
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| not_yaml(e.to_string()))?;
    let mut imports = Map::new();
    let mut content = Value::Null;
    for (i, mut document) in documents.into_iter().enumerate() {
        if let Some(named) = document.as_object_mut().and_then(|fields| fields.remove("imports"))
            && !named.is_null()
        {
            imports.extend(object(&format!("{at}.imports"), &named)?.clone());
        }
        // the second document is the content of a file whose first one holds imports alone
        let only_imports = document.as_object().is_some_and(Map::is_empty);
        if i == 0 || !only_imports {
            content = document;
        }
    }
    put_in_place(at, content, &imports, import, depth)
}

/// A value whose `$import`s are replaced by what they name.
fn put_in_place(
    at: &str,
    value: Value,
    imports: &Map<String, Value>,
    import: &mut dyn FnMut(&str) -> Result<String, String>,
    depth: usize,
) -> Result<Value, Problem> {
    match value {
        Value::Array(items) => {
            let mut all = Vec::new();
            for (i, item) in items.into_iter().enumerate() {
                let at = format!("{at}[{i}]");
                let names = match item.as_object() {
                    Some(fields) if fields.len() == 1 => fields.get("$import").cloned(),
                    _ => None,
                };
                let Some(names) = names else {
                    all.push(put_in_place(&at, item, imports, import, depth)?);
                    continue;
                };
                for imported in imported(&at, &names, imports, import, depth)? {
                    match imported {
                        Value::Array(items) => all.extend(items),
                        item => all.push(item),
                    }
                }
            }
            Ok(Value::Array(all))
        }
        Value::Object(mut fields) => {
            let mut all = Map::new();
            if let Some(names) = fields.remove("$import") {
                for imported in imported(at, &names, imports, import, depth)? {
                    all.extend(object(at, &imported)?.clone());
                }
            }
            for (key, value) in fields {
                let value = put_in_place(&format!("{at}.{key}"), value, imports, import, depth)?;
                all.insert(key, value);
            }
            Ok(Value::Object(all))
        }
        plain => Ok(plain),
    }
}

/// The files of one name, or of several.
fn imported(
    at: &str,
    names: &Value,
    imports: &Map<String, Value>,
    import: &mut dyn FnMut(&str) -> Result<String, String>,
    depth: usize,
) -> Result<Vec<Value>, Problem> {
    let names = match names {
        Value::Array(names) => names.iter().collect(),
        name => vec![name],
    };
    let mut all = Vec::new();
    for name in names {
        let Some(name) = name.as_str() else { return wrong(at, "a name from `imports`", name) };
        let refused = |reason: String| (at.to_string(), ImportProblem::Import { name: name.into(), reason });
        if depth == DEEPEST {
            return Err(refused(format!("files import one another {DEEPEST} deep, maybe in a circle")));
        }
        let path = imports.get(name).and_then(Value::as_str);
        let path = path.ok_or_else(|| refused("it is not among the `imports` of its file".into()))?;
        let text = import(path).map_err(refused)?;
        all.push(resolved(path, &text, import, depth + 1)?);
    }
    Ok(all)
}
