//! The calls that make, copy and close handles.

use cowslip_abi::{Error, Rights};

use super::request::Request;
use super::{Answer, Done};
use crate::object::{Kernel, Object};

pub(super) fn endpoint_create(kernel: &mut Kernel, request: &Request) -> Answer {
    let endpoint = kernel.create_endpoint()?;
    match kernel.install(
        request.space,
        Object::Endpoint(endpoint),
        Rights::ENDPOINT,
        0,
    ) {
        Ok(handle) => Ok(Done::Handle(handle)),
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
    let badge = entry.badge_for(badge)?;
    let handle = kernel.install(target, entry.object, rights, badge)?;
    Ok(Done::Handle(handle))
}
