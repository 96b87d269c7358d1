//! The shell: reads lines, runs programs, says how they ended.
//!
//! `sh --ticks` says what the time-stamp counter was when it began, and leaves.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use libipc::fs::{self, File};
use libipc::services::Error;
use libipc::services::console::MAX_LINE;
use libipc::services::memstat::MemstatClient;
use libipc::services::procd::{Ended, ProcdClient, Reason};
use libipc::{Commit, io, print, println, process, raw, start};
use user_apps::memmap::Map;
use user_apps::ps::Snapshot;
use user_apps::shell::{Command, Line, Output, parse};
use user_apps::stacks;

libipc::program!(run);

const HELP: &str = "\
PROGRAM [ARGS] [&]   run a program of /bin, or by path; with & without waiting for it
A | B                what A prints is what B reads
A < FILE             A reads a file
A > FILE, A >> FILE  what A prints goes to a file, instead of or behind what is in it
strict PROGRAM [ARGS] [&]  the same, with all the memory that it asks for promised to it
ps [-t]              list processes: state, CPU time, memory, what they are blocked on; with -t all threads
memmap PID           draw the memory of a process that was started from here
backtrace PID        say in which functions its threads are
memstat              show the machine's memory
kill PID             end a process that was started from here
exit [STATUS]        leave
^C ends the program that runs, ^D leaves
ls /bin lists the programs, among them cat cp echo ls mkdir mv rm wc for files";

fn run() -> i32 {
    let began = raw::ticks();
    if start::args().nth(1) == Some("--ticks") {
        println!("sh began at {began} ticks");
        return 0;
    }
    let mut line = [0; MAX_LINE];
    loop {
        report_ended();
        prompt();
        let len = match io::read_line(&mut line) {
            Ok(Some(len)) => len,
            Ok(None) => {
                end_prompt();
                return 0;
            }
            Err(error) => {
                println!("sh: {error}");
                return 1;
            }
        };
        let Ok(text) = core::str::from_utf8(&line[..len]) else {
            println!("sh: not text");
            continue;
        };
        match parse(text) {
            Ok(line) => {
                if let Some(status) = execute(&line) {
                    return status;
                }
            }
            Err(wrong) => println!("sh: {wrong}"),
        }
    }
}

/// A script has none.
fn prompt() {
    if start::stdin() == 0 {
        print!("$ ");
    }
}

fn end_prompt() {
    if start::stdin() == 0 {
        println!();
    }
}

/// Does what a line says; returns the exit status if that is to leave.
fn execute(line: &Line) -> Option<i32> {
    let [first, ..] = &line.commands[..] else {
        return None;
    };
    let words: Vec<&str> = first.words.iter().map(String::as_str).collect();
    let outcome = match (&words[..], &line.commands[..]) {
        (["exit"], _) => return Some(0),
        (["exit", status], _) => match status.parse() {
            Ok(status) => return Some(status),
            Err(_) => not_a_number(status),
        },
        (["help"], [_]) => {
            println!("{HELP}");
            Ok(())
        }
        (["ps"], [_]) => processes(false),
        (["ps", "-t"], [_]) => processes(true),
        (["memmap", pid], [_]) => with_pid(pid, draw_memory),
        (["backtrace", pid], [_]) => with_pid(pid, backtraces),
        (["memstat"], [_]) => memory(),
        (["kill", pid], _) => with_pid(pid, process::kill),
        _ => {
            run_pipeline(line);
            Ok(())
        }
    };
    if let Err(error) = outcome {
        println!("sh: {}: {error}", words[0]);
    }
    None
}

fn with_pid(word: &str, action: fn(u64) -> Result<(), Error>) -> Result<(), Error> {
    match word.parse() {
        Ok(pid) => action(pid),
        Err(_) => not_a_number(word),
    }
}

fn not_a_number(word: &str) -> Result<(), Error> {
    println!("sh: {word} is not a number");
    Ok(())
}

/// Runs programs, each of which writes to the next one, and waits for them unless it is told not to.
fn run_pipeline(line: &Line) {
    let mut pids = Vec::new();
    let started = start_all(&line.commands, &mut pids);
    if let Err((what, error)) = started {
        // Those that run find their pipes closed.
        println!("sh: {what}: {error}");
    } else if line.is_background {
        println!("[{}]", pids.last().unwrap_or(&0));
        return;
    }
    if let Err(error) = wait_for_all(&pids) {
        println!("sh: {error}");
    }
}

/// Starts the programs of a pipeline. An error says what it is about.
fn start_all<'a>(commands: &'a [Command], pids: &mut Vec<u64>) -> Result<(), (&'a str, Error)> {
    let mut from_last = None;
    for (i, command) in commands.iter().enumerate() {
        let (to_next, from_this) = if i + 1 < commands.len() {
            let (reader, writer) = fs::pipe().map_err(|error| ("pipe", error))?;
            (Some(writer), Some(reader))
        } else {
            (None, None)
        };
        pids.push(start(command, from_last, to_next)?);
        from_last = from_this;
    }
    Ok(())
}

/// Starts a program. What is redirected is not the pipe's.
fn start(
    command: &Command,
    input: Option<File>,
    output: Option<File>,
) -> Result<u64, (&str, Error)> {
    fn about<'a>(what: &'a str) -> impl Fn(Error) -> (&'a str, Error) {
        move |error| (what, error)
    }
    let input = match &command.input {
        Some(path) => Some(File::open(path).map_err(about(path))?),
        None => input,
    };
    let output = match &command.output {
        // Processes that the program starts write to the same file: each behind the others.
        Some(Output::To(path)) => {
            File::create(path).map_err(about(path))?;
            Some(File::append(path).map_err(about(path))?)
        }
        Some(Output::AtEndOf(path)) => Some(File::append(path).map_err(about(path))?),
        None => output,
    };
    let is_strict = command.words.len() > 1 && command.words[0] == "strict";
    let (class, words) = match is_strict {
        true => (Commit::Strict, &command.words[1..]),
        false => (Commit::Overcommit, &command.words[..]),
    };
    let program = words[0].as_str();
    let path = match program.contains('/') {
        true => String::from(program),
        false => format!("/bin/{program}"),
    };
    let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let streams = fs::streams(input.as_ref(), output.as_ref());
    process::spawn_between(class, streams, &path, &args).map_err(about(program))
}

/// Waits for all programs of a pipeline, from the last to the first: ^C ends all of them.
fn wait_for_all(pids: &[u64]) -> Result<(), Error> {
    let procd = ProcdClient::borrow(start::procd());
    let mut last_status = None;
    for (i, &pid) in pids.iter().enumerate().rev() {
        // One that has ended already cannot be interrupted.
        let _ = procd.foreground(pid);
        let Ended { status, .. } = process::wait(pid)?;
        if status == Reason::Interrupt.status() {
            for &other in &pids[..i] {
                let _ = process::kill(other);
            }
        }
        last_status.get_or_insert(status);
    }
    procd.foreground(0)?;
    match last_status {
        None | Some(0) => {}
        Some(status) => println!("[status {status}]"),
    }
    Ok(())
}

/// Says which programs have ended since the last line.
fn report_ended() {
    while let Ok(Some(Ended { pid, status })) = process::try_wait() {
        println!("[{pid}] ended, status {status}");
    }
}

fn processes(shows_threads: bool) -> Result<(), Error> {
    let snapshot = Snapshot::take()?;
    print!(
        "{}",
        Snapshot {
            shows_threads,
            ..snapshot
        }
    );
    Ok(())
}

fn draw_memory(pid: u64) -> Result<(), Error> {
    print!("{}", Map::of(pid)?);
    Ok(())
}

fn backtraces(pid: u64) -> Result<(), Error> {
    for (stack, number) in stacks::of(pid)?.iter().zip(1..) {
        println!("thread {number}");
        for line in stack {
            println!("{line}");
        }
    }
    Ok(())
}

fn memory() -> Result<(), Error> {
    let memory = MemstatClient::borrow(start::memstat()).query()?;
    println!(
        "frames   total {:>9}   free {:>9}   used {:>9}",
        memory.total,
        memory.free,
        memory.used()
    );
    println!(
        "        shared {:>9}   reference counts {:>9}",
        memory.shared, memory.counts
    );
    println!(
        "      promised {:>9}   free for all {:>13}",
        memory.promised,
        memory.free.saturating_sub(memory.promised)
    );
    println!("pages since boot");
    println!(
        "  messages     copied {:>9}   remapped {:>9}",
        memory.copied, memory.remapped
    );
    println!(
        "  copy on write broken {:>8}   reclaimed {:>8}",
        memory.broken, memory.reclaimed
    );
    println!(
        "  zero-filled {:>9}   freed {:>9}",
        memory.zeroed, memory.freed
    );
    Ok(())
}
