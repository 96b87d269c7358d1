//! The calls that make, copy and close handles.

use cowslip_abi::{Error, Rights};

use super::request::{Request, Values};
use super::{Answer, Done};
use crate::object::{HandleEntry, Kernel, Object};

pub(super) fn endpoint_create(kernel: &mut Kernel, request: &Request) -> Answer {
    let endpoint = kernel.create_endpoint()?;
    match kernel.install(
        request.space,
        Object::Endpoint(endpoint),
        Rights::ENDPOINT,
        0,
    ) {
        Ok(handle) => Ok(Values::of([handle.0.into()]).into()),
        Err(error) => {
            kernel.endpoints.remove(kernel.mm, endpoint);
            Err(error)
        }
    }
}

pub(super) fn close(kernel: &mut Kernel, request: &Request) -> Answer {
    kernel.close(request.space, request.handle)?;
    Ok(Done::Nothing)
}

pub(super) fn copy(kernel: &mut Kernel, request: &Request) -> Answer {
    let [space, rights, badge, ..] = request.args;
    let entry = request
        .entry(kernel, request.handle)?
        .having(Rights::COPY)?;
    let target = request.space_or_own(kernel, space, Rights::MANAGE)?;
    let (target, _) = kernel.space_at(target)?;
    if !kernel.is_alive(entry.object) {
        return Err(Error::Died);
    }

    let rights = u32::try_from(rights).ok().and_then(Rights::from_bits);
    let rights = rights.ok_or(Error::BadArgument)?;
    entry.having(rights)?;
    let badge = if badge == 0 {
        entry.badge
    } else {
        minted_badge(entry, badge)?
    };
    let handle = kernel.install(target, entry.object, rights, badge)?;
    Ok(Values::of([handle.0.into()]).into())
}

/// The badge asked for, if it stands for no more than the original's.
fn minted_badge(entry: HandleEntry, badge: u64) -> Result<u64, Error> {
    let entry = entry.having(Rights::MINT)?;
    let allowed = match entry.object {
        Object::Endpoint(_) => true,
        Object::Interrupt => entry.badge == HandleEntry::ALL_LINES || entry.badge == badge,
        Object::Ports => {
            let (inner, outer) = (PortRange::of_badge(badge), PortRange::of_badge(entry.badge));
            outer.contains(inner.first, inner.count)
        }
        Object::Space(_) | Object::Thread(_) | Object::System => false,
    };
    if allowed {
        Ok(badge)
    } else {
        Err(Error::BadArgument)
    }
}

/// The ports that a handle stands for.
#[derive(Clone, Copy)]
pub(super) struct PortRange {
    first: u64,
    count: u64,
}

impl PortRange {
    /// Decodes `first | count << 16`.
    pub(super) fn of_badge(badge: u64) -> Self {
        Self {
            first: badge & 0xffff,
            count: badge >> 16,
        }
    }

    /// Whether `count` ports from `first` on are within the range.
    pub(super) fn contains(self, first: u64, count: u64) -> bool {
        first >= self.first
            && first
                .checked_add(count)
                .is_some_and(|end| end <= self.first + self.count)
    }
}
