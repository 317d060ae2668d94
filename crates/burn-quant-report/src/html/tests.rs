//! Promises about the whole page.

use std::collections::HashSet;

use super::{page, sample};
use crate::diagnosis::{Diagnosis, Ends, LayerDiagnosis, Overview};

/// Returns what follows each occurrence of a prefix, up to a quote.
fn quoted<'a>(page: &'a str, prefix: &str) -> Vec<&'a str> {
    page.split(prefix).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// Returns what is between the style and the script.
fn content(page: &str) -> &str {
    page.split("</style>").nth(1).and_then(|rest| rest.split("<script>").next()).expect("a style and a script")
}

#[test]
fn a_page_of_200_layers_and_400_quantizers_is_at_most_300_kib() {
    let diagnosis = sample::diagnosis(200);
    assert_eq!((diagnosis.layers.len(), diagnosis.quantizers.len()), (200, 400));
    let page = page(&diagnosis);
    assert!(page.len() <= 300 * 1024, "{} bytes", page.len());
    for quantizer in &diagnosis.quantizers {
        assert!(page.contains(&quantizer.name), "no row of {}", quantizer.name);
    }
}

#[test]
fn names_are_never_markup() {
    let hostile = r#"<script>alert("1")</script>"#;
    let mut diagnosis = sample::diagnosis(5);
    diagnosis.title = hostile.into();
    diagnosis.layers[0].path = hostile.into();
    diagnosis.layers[0].channel_sqnr = vec![3.0, 9.0];
    diagnosis.layers[1].format = hostile.into();
    diagnosis.quantizers[0].name = hostile.into();
    diagnosis.quantizers[0].layer = hostile.into();
    diagnosis.findings[0].at = hostile.into();
    diagnosis.findings[0].message = hostile.into();
    diagnosis.overview.formats.insert(hostile.into(), 1);
    diagnosis.sensitivity[0].layer = hostile.into();
    diagnosis.recipes[0].name = hostile.into();
    let page = page(&diagnosis);
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("&lt;script&gt;alert"));
}

#[test]
fn an_empty_diagnosis_has_a_page() {
    let page = page(&Diagnosis::default());
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert!(page.contains("Nothing stands out."));
    assert!(!page.contains("<table"));
    assert!(!content(&page).contains("NaN"));
}

#[test]
fn what_is_not_a_number_is_a_dash() {
    let layer = LayerDiagnosis {
        path: "fc".into(),
        format: "int8".into(),
        calls: 0,
        own_sqnr: None,
        sqnr: Some(f64::NAN),
        share: f64::NAN,
        shift: None,
        float_amax: f32::NAN,
        quantized_amax: f32::INFINITY,
        non_finite: 0.0,
        channel_sqnr: vec![f32::NAN],
    };
    let page = page(&Diagnosis { layers: vec![layer], ..Diagnosis::default() });
    let row = page.split("<tbody>").nth(1).unwrap();
    assert_eq!(row.matches("<td>–").count(), 6, "{row}");
}

#[test]
fn numbers_that_are_not_finite_do_no_harm() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 0.0, -1.0] {
        let mut diagnosis = sample::diagnosis(10);
        let single = value as f32;
        for layer in &mut diagnosis.layers {
            (layer.own_sqnr, layer.sqnr, layer.share, layer.shift) = (Some(value), Some(value), value, Some(value));
            layer.channel_sqnr = vec![single; 3];
        }
        for quantizer in &mut diagnosis.quantizers {
            (quantizer.clipped, quantizer.outlier_ratio, quantizer.sqnr) = (value, Some(value), Some(value));
            (quantizer.grid, quantizer.channel_amax) = (vec![single; 3], vec![single; 3]);
            quantizer.histogram.as_mut().unwrap().to = single;
            quantizer.amax = Some(Ends { lowest: single, highest: single, count: 1 });
        }
        for layer in &mut diagnosis.sensitivity {
            (layer.only, layer.without, layer.weights) = (value, value, Some(value));
        }
        for point in &mut diagnosis.curve {
            (point.bits, point.score) = (value, value);
        }
        diagnosis.overview = Overview { effective_bits: value, output_sqnr: Some(value), ..diagnosis.overview };
        let page = page(&diagnosis);
        let body = content(&page);
        assert!(!body.contains(">NaN") && !body.contains(">inf") && !body.contains("=\"NaN"), "of {value}");
    }
}

#[test]
fn nothing_is_fetched() {
    let page = page(&sample::diagnosis(40));
    for address in ["http://", "https://", "//cdn", "src=", "@import", "url("] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn an_address_of_a_graph_is_a_link_only_if_it_is_relative() {
    let with_graph = |address: &str| page(&Diagnosis { graph: Some(address.into()), ..Diagnosis::default() });
    assert!(with_graph("graphs/model.svg").contains(r#"href="graphs/model.svg""#));
    for address in ["javascript:alert(1)", "https:x", "//example.org", "\t//example.org", "/etc/passwd"] {
        assert!(!with_graph(address).contains(&format!(r#"href="{address}"#)), "{address}");
    }
}

#[test]
fn every_anchor_exists_once() {
    let page = page(&sample::diagnosis(60));
    let ids = quoted(&page, " id=\"");
    let unique: HashSet<_> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    let links = quoted(&page, "href=\"#");
    assert!(links.len() > 60);
    for link in links {
        assert!(unique.contains(link), "no element has the id {link}");
    }
}

#[test]
fn twins_have_anchors_of_their_own() {
    let mut diagnosis = sample::diagnosis(10);
    diagnosis.layers[1].path = diagnosis.layers[0].path.clone();
    diagnosis.quantizers[1].name = diagnosis.quantizers[0].name.clone();
    let page = page(&diagnosis);
    let ids = quoted(&page, " id=\"");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}
