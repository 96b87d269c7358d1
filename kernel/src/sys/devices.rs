//! The calls on interrupts and I/O ports.

use cowslip_abi::{Error, PortIo, Rights};

use super::request::{Request, Values, handle_argument};
use super::{Answer, Done};
use crate::object::{HandleEntry, InterruptBinding, Kernel, MAX_LINES, Object, PortRange};

pub(super) fn interrupt_bind(kernel: &mut Kernel, request: &Request) -> Answer {
    let line = line(kernel, request)?;
    let handle = handle_argument(request.args[0])?;
    let (endpoint, bits) = request.endpoint(kernel, handle, Rights::NOTIFY)?;
    kernel.interrupts[line] = Some(InterruptBinding { endpoint, bits });
    kernel.platform.interrupt_enable(line as u32, true);
    Ok(Done::Nothing)
}

pub(super) fn interrupt_ack(kernel: &mut Kernel, request: &Request) -> Answer {
    let line = line(kernel, request)?;
    if kernel.interrupts[line].is_none() {
        return Err(Error::BadState);
    }
    kernel.platform.interrupt_enable(line as u32, true);
    Ok(Done::Nothing)
}

pub(super) fn port_io(kernel: &mut Kernel, request: &Request) -> Answer {
    let badge = request.machine(kernel, Object::Ports, Rights::DEVICE)?;
    let [port, value, operation, ..] = request.args;
    let operation = PortIo::from_user(operation).ok_or(Error::BadArgument)?;
    let width = operation.width();
    let Ok(number) = u16::try_from(port) else {
        return Err(Error::Denied);
    };
    if !PortRange::of_badge(badge).contains(port, width) {
        return Err(Error::Denied);
    }
    if operation.is_write() {
        kernel.platform.port_write(number, width, value as u32);
        Ok(Values::of([value]).into())
    } else {
        Ok(Values::of([kernel.platform.port_read(number, width).into()]).into())
    }
}

/// The one line that the call's handle stands for.
fn line(kernel: &Kernel, request: &Request) -> Result<usize, Error> {
    let badge = request.machine(kernel, Object::Interrupt, Rights::DEVICE)?;
    let line = u32::try_from(badge).map_err(|_| Error::BadArgument)?;
    let exists = badge != HandleEntry::ALL_LINES
        && (line as usize) < MAX_LINES
        && kernel.platform.interrupt_exists(line);
    if exists {
        Ok(line as usize)
    } else {
        Err(Error::BadArgument)
    }
}
