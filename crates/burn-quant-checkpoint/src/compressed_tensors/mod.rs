//! Folders of compressed-tensors.
