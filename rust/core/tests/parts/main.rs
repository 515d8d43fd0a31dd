//! Single parts of the core, in one binary: to link many takes longer than to run them.

mod envelope;
mod frames;
mod index;
mod input;
