//! What quantizes a model: a preset under one of its names, presets together, or a file.

use std::path::Path;

use burn_quant::config::Preset;
use burn_quant::{QuantConfig, QuantError};

use crate::error::CliError;

/// Reads a recipe: `NAME`, `NAME+NAME`, or the path of a file.
///
/// Of names that are joined, the later ones add their rules to the first.
///
/// # Errors
///
/// [`CliError::Recipe`] for a name that is none, or a file that is no recipe; [`CliError::File`] for one that cannot be
/// read.
pub(crate) fn read(name: &str) -> Result<QuantConfig, CliError> {
    let failed = |source| CliError::Recipe { name: name.into(), source: Box::new(source) };
    let path = Path::new(name);
    if let Some(parse) = parser(path) {
        let text = std::fs::read_to_string(path).map_err(CliError::of_file(path, "read"))?;
        return parse(path, &text).map_err(failed);
    }
    let mut parts = name.split('+').map(|part| preset(part.trim()));
    let first = parts.next().expect("a split text has a part")?;
    parts.try_fold((first.config)(), |config, part| Ok(config.extend((part?.config)())))
}

/// Finds a preset by its name, a short one, or ModelOpt's; with hyphens, too.
///
/// # Errors
///
/// [`CliError::Recipe`] with the most similar names.
pub(crate) fn preset(name: &str) -> Result<&'static Preset, CliError> {
    let found = Preset::named(&name.replace('-', "_")).or_else(|_| Preset::named(name));
    found.map_err(|source| CliError::Recipe { name: name.into(), source: Box::new(source) })
}

type Parse = fn(&Path, &str) -> Result<QuantConfig, QuantError>;

/// What reads a file of this name; `None` if it is not that of a file.
fn parser(path: &Path) -> Option<Parse> {
    match path.extension()?.to_str()? {
        "toml" => Some(|_, text| QuantConfig::from_toml(text)),
        "json" => Some(|_, text| QuantConfig::from_json(text)),
        "yaml" | "yml" => Some(modelopt),
        _ => None,
    }
}

/// A recipe of ModelOpt; what it imports is looked for in the folders around it.
fn modelopt(path: &Path, text: &str) -> Result<QuantConfig, QuantError> {
    QuantConfig::from_modelopt_yaml(text, |import| {
        let files = path.ancestors().skip(1).map(|folder| folder.join(format!("{import}.yaml")));
        let Some(file) = files.into_iter().find(|file| file.is_file()) else {
            return Err(format!("no folder around `{}` has it", path.display()));
        };
        std::fs::read_to_string(&file).map_err(|error| error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use burn_quant::presets;

    use super::*;

    #[test]
    fn recipes_go_by_their_names_here_and_in_modelopt_and_add_up() {
        assert_eq!(read("int8_wo").unwrap(), presets::int8_weight_only());
        assert_eq!(read("int8-weight-only").unwrap(), presets::int8_weight_only());
        assert_eq!(read("NVFP4_AWQ_LITE_CFG").unwrap(), presets::nvfp4_awq_lite());
        assert_eq!(read("kv/fp8_cast").unwrap(), presets::kv_fp8_cast());
        assert_eq!(read("fp8+fp8_kv").unwrap(), presets::fp8_default().extend(presets::fp8_kv()));
    }

    #[test]
    fn a_name_that_is_none_comes_with_those_that_are_like_it() {
        let error = read("int8_wigth_only").unwrap_err();
        let CliError::Recipe { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains("int8_weight_only"), "{source}");
        assert!(error.hint().unwrap().contains("burn-quant presets"));
        assert!(matches!(read("no/such.toml"), Err(CliError::File { .. })));
    }
}
