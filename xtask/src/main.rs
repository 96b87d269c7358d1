//! Cowslip's development tasks: `cargo xtask <task>`.
//!
//! One file per task; what tasks share is in `workspace` (paths, cargo), `archive`, `cmdline`,
//! `limine_conf`, `machine` (QEMU) and `ending` (what became of a run).

mod archive;
mod bench;
mod book;
mod build;
mod check;
mod child;
mod cmdline;
mod ending;
mod firmware;
mod gdb;
mod image;
mod limine_conf;
mod machine;
mod miri;
mod new;
mod run;
mod serial;
mod setup;
mod soak;
mod symbolize;
mod test;
mod trace;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Cowslip's development tasks", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make a crate with a server or an app, which runs at once
    New(new::NewArgs),
    /// Build the kernel, the user programs and the boot archive
    Build(build::BuildArgs),
    /// Boot Cowslip in QEMU, with a shell or one program
    Run(run::RunArgs),
    /// Run a program on a kernel that records, and show its messages and faults
    Trace(trace::TraceArgs),
    /// Debug kernel and program with gdb, from the program's beginning on
    Gdb(gdb::GdbArgs),
    /// Run host tests, test programs and scenarios
    Test(test::TestArgs),
    /// Race on several CPUs at random, for as long as one likes
    Soak(soak::SoakArgs),
    /// Count what operations cost in instructions, beside other systems
    Bench(bench::BenchArgs),
    /// Judge formatting, lints, documentation and the direction of dependencies
    Check,
    /// Make the book of the pages in docs/
    Book(book::BookArgs),
    /// Run the kernel's library tests under Miri
    Miri(miri::MiriArgs),
    /// Write functions and lines behind the frames of programs in a log: from stdin to stdout
    Symbolize(symbolize::SymbolizeArgs),
    /// Make a disc image that boots on BIOS and UEFI machines
    Image(image::ImageArgs),
    /// Say which tools are there, and install those that are missing
    Setup,
}

fn main() -> ExitCode {
    end_with_the_reader();
    let result = match Cli::parse().task {
        Task::New(args) => new::main(&args),
        Task::Build(args) => build::main(&args),
        Task::Run(args) => run::main(&args),
        Task::Trace(args) => trace::main(&args),
        Task::Gdb(args) => gdb::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Soak(args) => soak::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Check => check::main(),
        Task::Book(args) => book::main(&args),
        Task::Miri(args) => miri::main(&args),
        Task::Symbolize(args) => symbolize::main(&args),
        Task::Image(args) => image::main(&args),
        Task::Setup => setup::main(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// Ends quietly, with the status of a broken pipe, when whoever reads the output has gone:
/// `cargo xtask test --list | head` is no failure. `println!` knows no other way than a panic.
fn end_with_the_reader() {
    const BROKEN_PIPE: i32 = 128 + 13;
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.to_string();
        if words.contains("failed printing to") && words.contains("Broken pipe") {
            std::process::exit(BROKEN_PIPE);
        }
        report(panic);
    }));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
