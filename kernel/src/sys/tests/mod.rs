//! System calls over simulated memory.

mod errors;
mod hostile;
mod lifecycle;
mod machine;
mod messages;
mod scheduling;
