//! How long the copy-on-write engine takes on the machine that this runs on.
//!
//! Instruction counts are blind to caches. Here the engine works on memory that is real, if not the
//! machine's own, and the clock is the host's: what is missing are the TLB, whose flushes are only
//! noted, and the changes of mode. `cargo xtask bench --host` runs this and prints a table.
//!
//! Small operations are done several times in what is measured at once, on other pages each time,
//! so that the clock's own cost is spread. Every benchmark checks what it has done, outside of what
//! is measured.

use std::borrow::Borrow;
use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use cowslip_abi::PAGE_SIZE;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kernel::mm::{Counter, sim::SimMemory};
use kernel_benches::{Batch, Space, many};

/// Pages of operations on mappings; the largest are 256 MiB.
const MAPPINGS: [u64; 5] = [1, 16, 256, 4096, LARGEST];
const LARGEST: u64 = 65_536;

/// Pages of messages.
const MESSAGES: [u64; 4] = [1, 16, 256, 1024];

/// Frames of the simulated memory: room for the largest parent, a child that copies everything,
/// and tables.
const NR_FRAMES: usize = 2 * LARGEST as usize + 8192;

criterion_group! {
    name = engine;
    config = Criterion::default()
        .sample_size(20)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = mappings, messages, cold_messages, memcpy
}
criterion_main!(engine);

/// fork, what it costs to write afterwards, and the end.
fn mappings(c: &mut Criterion) {
    bench(c, "fork", &MAPPINGS, fork);
    bench(c, "write_copies", &MAPPINGS, write_copies);
    bench(c, "write_reclaims", &MAPPINGS, write_reclaims);
    bench(c, "write_zeroes", &MAPPINGS, write_zeroes);
    bench(c, "unmap", &MAPPINGS, unmap);
    bench(c, "exit", &MAPPINGS, exit);
}

/// Messages between the same few pages, which caches may hold.
fn messages(c: &mut Criterion) {
    bench(c, "send", &MESSAGES, send);
    bench(c, "send_fresh", &MESSAGES, send_fresh);
    bench(c, "send_then_write", &MESSAGES, send_then_write);
}

/// Messages between other pages each time, which no cache holds.
fn cold_messages(c: &mut Criterion) {
    let memory = SimMemory::new(NR_FRAMES);
    let from = Space::written(memory.mm(), LARGEST, 1);
    let into = Space::mapped(memory.mm(), LARGEST);
    from.send(0, &into, 0, LARGEST);
    let mut group = c.benchmark_group("send_cold");
    for nr_pages in MESSAGES {
        let turn = Cell::new(0);
        group.bench_function(BenchmarkId::from_parameter(nr_pages), |b| {
            b.iter_custom(|iterations| {
                many(&memory, iterations, || {
                    let (source, destination) = cold_places(turn.replace(turn.get() + 1), nr_pages);
                    from.send(source, &into, destination, nr_pages);
                })
            });
        });
        let (source, destination) = cold_places(turn.get() - 1, nr_pages);
        into.expect(destination, nr_pages, source, 1);
    }
    group.finish();
    from.end();
    into.end();
}

/// What everything is compared with.
fn memcpy(c: &mut Criterion) {
    let memory = |seed: u8| vec![seed; LARGEST as usize * PAGE_SIZE];
    let (sources, mut destination) = ([memory(1), memory(2)], memory(3));
    let bytes = |nr_pages: u64| nr_pages as usize * PAGE_SIZE;
    let mut group = c.benchmark_group("memcpy");
    for nr_pages in MESSAGES.into_iter().chain([4096, LARGEST]) {
        group.bench_function(BenchmarkId::from_parameter(nr_pages), |b| {
            let mut turn = 0;
            b.iter(|| {
                turn ^= 1;
                let source = black_box(&sources[turn][..bytes(nr_pages)]);
                black_box(&mut destination[..bytes(nr_pages)]).copy_from_slice(source);
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("memcpy_cold");
    for nr_pages in MESSAGES {
        group.bench_function(BenchmarkId::from_parameter(nr_pages), |b| {
            let mut turn = 0;
            b.iter(|| {
                let (from, into) = cold_places(turn, nr_pages);
                turn += 1;
                let source = black_box(&sources[0][bytes(from)..][..bytes(nr_pages)]);
                black_box(&mut destination[bytes(into)..][..bytes(nr_pages)])
                    .copy_from_slice(source);
            });
        });
    }
    group.finish();
    assert!(destination.iter().all(|&byte| byte != 0));
}

/// Where the nth message comes from and goes to, as page numbers: through all of memory, and
/// each time round to another place, so that every message changes its destination.
fn cold_places(nth: u64, nr_pages: u64) -> (u64, u64) {
    let from = nth * nr_pages % LARGEST;
    let round = nth * nr_pages / LARGEST;
    (from, (from + round * nr_pages) % LARGEST)
}

/// Runs an operation for each number of pages.
fn bench(
    c: &mut Criterion,
    name: &str,
    sizes: &[u64],
    run: impl Fn(&SimMemory, u64, u64) -> Duration,
) {
    let memory = SimMemory::new(NR_FRAMES);
    let mut group = c.benchmark_group(name);
    for &nr_pages in sizes {
        let before = memory.mm().frames.free_count() + memory.mm().counts.nodes();
        group.bench_function(BenchmarkId::from_parameter(nr_pages), |b| {
            b.iter_custom(|iterations| run(&memory, nr_pages, iterations));
        });
        let after = memory.mm().frames.free_count() + memory.mm().counts.nodes();
        assert_eq!(after, before, "{name}/{nr_pages} keeps frames");
    }
    group.finish();
}

/// A child for pages that the parent has just written, all of them.
fn fork(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let parent = Space::written(memory.mm(), batch.nr_pages(), 1);
    let time = batch.time(
        memory,
        iterations,
        || {
            parent.write(0, batch.nr_pages());
            batch.times(|| Space::new(memory.mm()))
        },
        |children, nth| children[nth as usize].share(&parent, nth * nr_pages, nr_pages),
        |children| {
            for (nth, child) in (0..).zip(children) {
                child.expect(nth * nr_pages, nr_pages, nth * nr_pages, 1);
                child.end();
            }
        },
    );
    parent.end();
    time
}

/// Write faults in a child: each page is copied.
fn write_copies(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let parent = Space::written(memory.mm(), batch.nr_pages(), 1);
    let time = write_faults(
        memory,
        nr_pages,
        iterations,
        &memory.mm().stats.cow_broken,
        || {
            let child = Space::new(memory.mm());
            child.share(&parent, 0, batch.nr_pages());
            child
        },
        |child| {
            child.expect(0, batch.nr_pages(), 0, 1);
            child.end();
        },
    );
    parent.end();
    time
}

/// Write faults in a parent whose child has gone: it is the last owner.
fn write_reclaims(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let parent = Space::written(memory.mm(), batch.nr_pages(), 1);
    let time = write_faults(
        memory,
        nr_pages,
        iterations,
        &memory.mm().stats.reclaimed,
        || {
            let child = Space::new(memory.mm());
            child.share(&parent, 0, batch.nr_pages());
            child.end();
            &parent
        },
        |_| (),
    );
    parent.expect(0, batch.nr_pages(), 0, 1);
    parent.end();
    time
}

/// First writes to untouched memory.
fn write_zeroes(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    write_faults(
        memory,
        nr_pages,
        iterations,
        &memory.mm().stats.zero_filled,
        || Space::mapped(memory.mm(), batch.nr_pages()),
        Space::end,
    )
}

/// Write faults on all pages of a space that is made anew for each batch, each of which this counter
/// counts.
fn write_faults<'m, S: Borrow<Space<'m>>>(
    memory: &SimMemory,
    nr_pages: u64,
    iterations: u64,
    counter: &Counter,
    make: impl Fn() -> S,
    end: impl Fn(S),
) -> Duration {
    let batch = Batch::of(nr_pages);
    batch.time(
        memory,
        iterations,
        || (make(), counter.get()),
        |(space, _), nth| (*space).borrow().write(nth * nr_pages, nr_pages),
        |(space, before)| {
            batch.expect_all(counter, before);
            end(space);
        },
    )
}

/// Pages that nobody else has, and whose frames become free.
fn unmap(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let mm = memory.mm();
    batch.time(
        memory,
        iterations,
        || {
            let space = Space::mapped(mm, batch.nr_pages());
            space.write(0, batch.nr_pages());
            (space, mm.stats.freed.get())
        },
        |(space, _), nth| {
            space.unmap(nth * nr_pages, nr_pages);
        },
        |(space, before)| {
            assert!(mm.stats.freed.get() - before >= batch.nr_pages());
            assert_eq!(space.nr_private(), 0);
            space.end();
        },
    )
}

/// The end of a child that shares everything with its parent.
fn exit(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let parent = Space::written(memory.mm(), batch.nr_pages(), 1);
    let time = batch.time(
        memory,
        iterations,
        || {
            let mut nth = 0;
            batch.times(|| {
                let child = Space::new(memory.mm());
                child.share(&parent, nth * nr_pages, nr_pages);
                nth += 1;
                child
            })
        },
        |children, _| children.pop().expect("a child for each").end(),
        |children| assert!(children.is_empty()),
    );
    parent.expect(0, batch.nr_pages(), 0, 1);
    parent.end();
    time
}

/// Messages from two buffers in turn: nobody writes, and every page differs from the one before.
fn send(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let senders = [1, 2].map(|seed| Space::written(memory.mm(), nr_pages, seed));
    let receiver = Space::mapped(memory.mm(), nr_pages);
    let mut turn = 0;
    let time = many(memory, iterations, || {
        turn ^= 1;
        senders[turn].send(0, &receiver, 0, nr_pages);
    });
    receiver.expect(0, nr_pages, 0, turn as u64 + 1);
    senders.into_iter().for_each(Space::end);
    receiver.end();
    time
}

/// Messages whose sender has written to every page since it was last sent.
fn send_fresh(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let sender = Space::written(memory.mm(), batch.nr_pages(), 1);
    let receiver = Space::mapped(memory.mm(), batch.nr_pages());
    let time = batch.time(
        memory,
        iterations,
        || sender.write(0, batch.nr_pages()),
        |(), nth| sender.send(nth * nr_pages, &receiver, nth * nr_pages, nr_pages),
        |()| receiver.expect(0, batch.nr_pages(), 0, 1),
    );
    sender.end();
    receiver.end();
    time
}

/// Messages whose receiver writes to every page: what copy-on-write costs when it does not pay.
fn send_then_write(memory: &SimMemory, nr_pages: u64, iterations: u64) -> Duration {
    let batch = Batch::of(nr_pages);
    let mm = memory.mm();
    let sender = Space::written(mm, batch.nr_pages(), 1);
    let receiver = Space::mapped(mm, batch.nr_pages());
    let time = batch.time(
        memory,
        iterations,
        || mm.stats.cow_broken.get(),
        |_, nth| {
            let first = nth * nr_pages;
            sender.send(first, &receiver, first, nr_pages);
            receiver.write(first, nr_pages);
        },
        |before| batch.expect_all(&mm.stats.cow_broken, before),
    );
    receiver.expect(0, batch.nr_pages(), 0, 1);
    sender.end();
    receiver.end();
    time
}
