//! What commands are given to begin with.
