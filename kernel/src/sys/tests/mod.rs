//! System calls over simulated memory. What is checked of an address is about page tables of 512
//! entries, so with small ones there are none.

mod audit;
mod beside;
mod cpus;
mod creation;
mod deadlines;
mod errors;
mod fast;
mod fast_share;
mod hostile;
mod inspect;
mod lifecycle;
mod loans;
mod long;
mod machine;
mod messages;
mod ranked;
mod scheduling;
