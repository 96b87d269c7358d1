//! System calls over simulated memory.

mod audit;
mod cpus;
mod errors;
mod fast;
mod fast_share;
mod hostile;
mod lifecycle;
mod long;
mod machine;
mod messages;
mod scheduling;
