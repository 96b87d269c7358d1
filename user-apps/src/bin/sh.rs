//! The shell: reads lines, runs programs, says how they ended.
//!
//! `sh --ticks` says what the time-stamp counter was when it began, and leaves.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;

use libipc::services::Error;
use libipc::services::console::MAX_LINE;
use libipc::services::files::FilesClient;
use libipc::services::memstat::MemstatClient;
use libipc::services::procd::{Ended, ProcdClient};
use libipc::{Commit, io, print, println, process, raw, start};

libipc::program!(run);

const HELP: &str = "\
PROGRAM [ARGS] [&]   run a program of /bin, or by path; with & without waiting for it
strict PROGRAM [ARGS] [&]  the same, with all the memory that it asks for promised to it
ls [DIRECTORY]       list files, of /bin if not told otherwise
ps                   list processes
memstat              show the machine's memory
kill PID             end a process that was started from here
exit [STATUS]        leave
^C ends the program that runs, ^D leaves";

fn run() -> i32 {
    let began = raw::ticks();
    if start::args().nth(1) == Some("--ticks") {
        println!("sh began at {began} ticks");
        return 0;
    }
    let mut line = [0; MAX_LINE];
    loop {
        report_ended();
        print!("$ ");
        let len = match io::read_line(&mut line) {
            Ok(Some(len)) => len,
            Ok(None) => {
                println!();
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
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["exit"] => return 0,
            ["exit", status] => match status.parse() {
                Ok(status) => return status,
                Err(_) => println!("sh: {status} is not a number"),
            },
            [command, args @ ..] => {
                if let Err(error) = execute(command, args) {
                    println!("sh: {command}: {error}");
                }
            }
        }
    }
}

fn execute(command: &str, args: &[&str]) -> Result<(), Error> {
    match (command, args) {
        ("help", []) => println!("{HELP}"),
        ("ls", []) => list("/bin")?,
        ("ls", [directory]) => list(directory)?,
        ("ps", []) => processes()?,
        ("memstat", []) => memory()?,
        ("kill", [pid]) => match pid.parse() {
            Ok(pid) => process::kill(pid)?,
            Err(_) => println!("sh: {pid} is not a number"),
        },
        ("strict", [program, args @ ..]) => run_program(Commit::Strict, program, args)?,
        (program, args) => run_program(Commit::Overcommit, program, args)?,
    }
    Ok(())
}

/// Runs a program, with `&` as its last argument without waiting for it.
fn run_program(class: Commit, program: &str, args: &[&str]) -> Result<(), Error> {
    match args {
        [args @ .., "&"] => println!("[{}]", spawn(class, program, args)?),
        args => foreground(class, program, args)?,
    }
    Ok(())
}

/// Starts a program of `/bin`, or by path.
fn spawn(class: Commit, program: &str, args: &[&str]) -> Result<u64, Error> {
    if program.contains('/') {
        return process::spawn_with(class, program, args);
    }
    process::spawn_with(class, &alloc::format!("/bin/{program}"), args)
}

/// Runs a program to its end, or to ^C.
fn foreground(class: Commit, program: &str, args: &[&str]) -> Result<(), Error> {
    let procd = ProcdClient::borrow(start::procd());
    let pid = spawn(class, program, args)?;
    procd.foreground(pid)?;
    let ended = process::wait(pid)?;
    procd.foreground(0)?;
    if ended.status != 0 {
        println!("[status {}]", ended.status);
    }
    Ok(())
}

/// Says which programs have ended since the last line.
fn report_ended() {
    while let Ok(Some(Ended { pid, status })) = process::try_wait() {
        println!("[{pid}] ended, status {status}");
    }
}

fn list(directory: &str) -> Result<(), Error> {
    let files = FilesClient::borrow(start::files());
    let mut names = [0; 1024];
    let mut skip = 0;
    loop {
        let (count, len) = files.list_into(directory, skip, &mut names)?;
        if count == 0 {
            return Ok(());
        }
        for name in start::split_args(&names[..len]) {
            match files.open(&alloc::format!("{directory}/{name}")) {
                Ok(file) => println!("{:>9}  {name}", file.size),
                Err(_) => println!("{:>9}  {name}/", ""),
            }
        }
        skip += count;
    }
}

fn processes() -> Result<(), Error> {
    let procd = ProcdClient::borrow(start::procd());
    println!("{:>6} {:>6} {:>9}  NAME", "PID", "PARENT", "COMMIT");
    let mut last = 0;
    loop {
        let (entries, count) = procd.entries(last)?;
        for entry in &entries[..count] {
            let state = if entry.ended == 1 { " (ended)" } else { "" };
            println!(
                "{:>6} {:>6} {:>9}  {}{state}",
                entry.pid,
                entry.ppid,
                entry.commit,
                entry.name()
            );
            last = entry.pid;
        }
        if count == 0 {
            return Ok(());
        }
    }
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
