//! The layouts of AutoAWQ and GPTQ.
