//! How codes and scales are stored.
