//! Names of the kernel's functions, for people.
//!
//! The boot archive has a list of them, made from the executable: a line for each, address (16
//! hexadecimal digits) and name, sorted by address.

use spin::Once;

static LIST: Once<&'static str> = Once::new();

/// Uses this list from here on.
pub fn init(list: &'static str) {
    LIST.call_once(|| list);
}

/// The function that an address lies in, and the distance from its start.
pub fn find(addr: u64) -> Option<(&'static str, u64)> {
    let [text, rodata, ..] = super::paging::image();
    let symbols = LIST.get()?.lines().filter_map(|line| {
        let (start, name) = line.split_once(' ')?;
        Some((u64::from_str_radix(start, 16).ok()?, name))
    });
    let (start, name) = symbols.take_while(|(start, _)| *start <= addr).last()?;
    (text..rodata).contains(&addr).then(|| (name, addr - start))
}
