//! ModelOpt's unified Hugging Face format.
