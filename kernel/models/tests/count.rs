//! The kernel's reference counts.

use std::sync::Arc;

use kernel_models::{
    Patience, Watched, Weakness,
    atomic::AtomicU64,
    check,
    mm::counts::{Count, Dropped, Flushed},
};
use loom::thread;

/// A frame and its count.
struct Frame {
    place: AtomicU64,
    contents: Watched,
}

impl Frame {
    /// A frame with so many references.
    fn new(nr_references: u64) -> Arc<Self> {
        let frame = Self {
            place: AtomicU64::known(0),
            contents: Watched::default(),
        };
        for _ in 1..nr_references {
            frame.count().increment();
        }
        Arc::new(frame)
    }

    fn count(&self) -> Count<'_> {
        Count::new(&self.place)
    }

    /// Reads the frame, and then gives a reference away; the last one frees the frame, which is to write
    /// to it.
    fn read_and_release(&self) -> Dropped {
        self.contents.get();
        let dropped = self.count().release(&Flushed);
        if dropped == Dropped::Last {
            self.contents.set(1);
        }
        dropped
    }
}

/// How many of these there were.
fn number_of(dropped: Dropped, all: &[Dropped]) -> usize {
    all.iter().filter(|&&one| one == dropped).count()
}

/// CPUs that have one reference each give it away.
fn they_release(nr_cpus: usize) {
    let frame = Frame::new(nr_cpus as u64);
    let others: Vec<_> = (1..nr_cpus)
        .map(|_| {
            let frame = Arc::clone(&frame);
            thread::spawn(move || frame.read_and_release())
        })
        .collect();
    let mut all = vec![frame.read_and_release()];
    all.extend(others.into_iter().map(|other| other.join().unwrap()));
    assert_eq!(number_of(Dropped::Last, &all), 1);
    assert_eq!(number_of(Dropped::Second, &all), 1);
    assert!(frame.count().is_one(), "as the next owner finds it");
}

#[test]
fn the_last_of_two_frees_the_frame() {
    check(5, || they_release(2));
}

#[test]
fn the_last_of_three_frees_the_frame() {
    check(4, || they_release(3));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_last_one_must_acquire() {
    Weakness::Acquire.prevails();
    check(5, || they_release(2));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_others_must_release() {
    Weakness::Release.prevails();
    check(5, || they_release(2));
}

#[test]
#[should_panic(expected = "left == right")]
fn counting_down_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(5, || they_release(2));
}

/// CPU 1 reads the frame and gives its reference away, or the other way round. CPU 0 writes to the frame
/// as soon as it finds that it has the only reference.
fn it_writes_alone(reads_first: bool) {
    let frame = Frame::new(2);
    let other = {
        let frame = Arc::clone(&frame);
        thread::spawn(move || {
            if reads_first {
                frame.contents.get();
            }
            assert_eq!(frame.count().release(&Flushed), Dropped::Second);
            if !reads_first {
                frame.contents.get();
            }
        })
    };
    let patience = Patience::default();
    while !frame.count().is_one() {
        patience.wait();
    }
    frame.contents.set(1);
    other.join().unwrap();
    assert!(frame.count().is_one());
}

#[test]
fn what_others_read_is_not_written_by_who_finds_the_count_at_one() {
    check(5, || it_writes_alone(true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn nobody_may_read_what_it_has_counted_down() {
    check(5, || it_writes_alone(false));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn finding_the_count_at_one_must_acquire() {
    Weakness::Acquire.prevails();
    check(5, || it_writes_alone(true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn counting_down_must_release() {
    Weakness::Release.prevails();
    check(5, || it_writes_alone(true));
}

/// CPU 0 has a reference, makes another one from it, and gives both away, while CPU 1 gives its own away. By
/// sample, as runs of neighbours are counted, or one by one.
fn it_copies(by_sample: bool) {
    let frame = Frame::new(2);
    let other = {
        let frame = Arc::clone(&frame);
        thread::spawn(move || {
            frame.contents.get();
            let count = frame.count();
            let sample = count.sample();
            if by_sample && !sample.is_one() && count.release_from(sample, &Flushed) {
                return if sample.is_two() {
                    Dropped::Second
                } else {
                    Dropped::Remaining
                };
            }
            frame.read_and_release()
        })
    };
    let sample = frame.count().sample();
    let is_second = if by_sample && frame.count().increment_from(sample) {
        sample.is_one()
    } else {
        frame.count().increment()
    };
    let mut all = vec![frame.read_and_release(), frame.read_and_release()];
    all.push(other.join().unwrap());
    assert_eq!(number_of(Dropped::Last, &all), 1);
    // It was shared from the beginning.
    assert_eq!(number_of(Dropped::Second, &all), 1 + usize::from(is_second));
    assert!(frame.count().is_one());
}

#[test]
fn a_reference_is_made_while_another_one_goes() {
    check(5, || it_copies(false));
}

#[test]
fn references_are_counted_by_sample_while_others_are_not() {
    check(5, || it_copies(true));
}

#[test]
#[should_panic(expected = "left == right")]
fn counting_up_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(5, || it_copies(false));
}

#[test]
#[should_panic(expected = "left == right")]
fn counting_by_sample_must_be_one_step() {
    Weakness::Atomicity.prevails();
    check(5, || it_copies(true));
}
