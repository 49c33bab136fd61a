//! One initialisation of NVML: the devices found, and a round of calls for them. All calls are made from one thread.
//!
//! The number of calls in a round is bounded: per device and MIG instance (`device.rs`), and by [`EVENTS_A_ROUND`] for
//! events.

use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::device::OpenDevice;
use super::raw::{self, Room};
use super::reading::{Fault, Reading, XidEvent};

/// A library that claims more is broken: the largest machines have 16, and a report may list 512 GPUs and MIG
/// instances.
const DEVICES_AT_MOST: u32 = 1_024;
/// If a device raises more events between two rounds, the count is too low, but the device is unhealthy either way.
pub(super) const EVENTS_A_ROUND: usize = 64;

/// One initialisation.
pub(super) struct Session<'nvml> {
    driver_version: String,
    devices: Vec<OpenDevice<'nvml>>,
    events: Option<EventSet<'nvml>>,
    xids: Vec<XidEvent>,
    room: Room,
    /// The device for which the next round also reads values that change seldom.
    turn: usize,
    fresh: bool,
    calls: u32,
    nvml: &'nvml Nvml,
}

impl<'nvml> Session<'nvml> {
    /// Lists the devices and registers for their events. A device that cannot be identified is left out: for NVML it
    /// does not exist.
    pub(super) fn new(nvml: &'nvml Nvml) -> Result<Self, NvmlError> {
        let driver_version = nvml.sys_driver_version()?;
        // The calls of nvml-wrapper and this function before the first device.
        let calls = 5;
        let count = nvml.device_count()?;
        if count > DEVICES_AT_MOST {
            tracing::warn!(count, most = DEVICES_AT_MOST, "NVML reports more devices than a machine can have");
            return Err(NvmlError::Unknown);
        }
        let mut left_out = LeftOut::default();
        let mut session = Self {
            driver_version,
            devices: Vec::new(),
            events: nvml.create_event_set().ok(),
            xids: Vec::new(),
            room: Room::default(),
            turn: 0,
            fresh: true,
            calls,
            nvml,
        };
        for index in 0..count {
            session.calls += 1;
            let device = match nvml.device_by_index(index) {
                Ok(device) => device,
                // The device exists, but access is denied: it is not lost.
                Err(NvmlError::NoPermission) => return Err(NvmlError::NoPermission),
                Err(error) => {
                    left_out.note(index, &error);
                    continue;
                }
            };
            match session.hold(device) {
                Ok(held) => session.devices.push(held),
                Err(error) => left_out.note(index, &error),
            }
        }
        left_out.log();
        Ok(session)
    }

    fn hold(&mut self, device: Device<'nvml>) -> Result<OpenDevice<'nvml>, NvmlError> {
        let held = OpenDevice::new(device, &mut self.calls)?;
        if let Some(events) = &self.events {
            self.calls += 1;
            if let Err(error) = raw::register_xids(held.device(), events) {
                tracing::warn!(uuid = %held.uuid(), %error, "Xid events of this device can't be received");
            }
        }
        Ok(held)
    }

    /// One round of calls for all devices. An error means that the driver does not respond at all.
    pub(super) fn read(&mut self) -> Result<Reading, NvmlError> {
        // NVML answers this call from memory, but notices if the driver is gone.
        self.nvml.device_count()?;
        let listened_before = self.xids.len();
        self.listen(Duration::ZERO);
        self.calls += 2 + (self.xids.len() - listened_before) as u32;
        self.read_seldom();
        let mut devices = Vec::with_capacity(self.devices.len());
        for held in &mut self.devices {
            devices.push(held.read(&mut self.room, &mut self.calls));
        }
        if !devices.is_empty() && devices.iter().all(|device| device.health.fault == Some(Fault::Unreadable)) {
            return Err(NvmlError::Unknown);
        }
        Ok(Reading {
            driver_version: self.driver_version.clone(),
            devices,
            xids: std::mem::take(&mut self.xids),
            initialised: std::mem::take(&mut self.fresh),
            calls: std::mem::take(&mut self.calls),
        })
    }

    /// Reads values that change seldom: for all devices in the first round, then for one device per round.
    fn read_seldom(&mut self) {
        let turns = if self.fresh { 0..self.devices.len() } else { self.turn..self.turn + 1 };
        for held in self.devices.get_mut(turns).into_iter().flatten() {
            held.read_seldom(&mut self.calls);
        }
        if !self.fresh {
            self.turn = (self.turn + 1) % self.devices.len().max(1);
        }
    }

    /// Waits this long for events and keeps them. Returns false if there is nothing to wait for.
    pub(super) fn listen(&mut self, timeout: Duration) -> bool {
        let Some(events) = &self.events else { return false };
        let mut timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        // Events of every kind count, because a library may deliver endless events of other kinds.
        for _ in self.xids.len()..EVENTS_A_ROUND {
            match raw::wait(events, timeout_ms) {
                Ok(event) => {
                    let held = self.devices.iter().find(|held| raw::same(held.device(), &event.device));
                    if let (Some(held), Some(xid)) = (held, event.xid) {
                        let uuid = Arc::clone(held.uuid());
                        self.xids.push(XidEvent { uuid, xid, gpu_instance: event.gpu_instance });
                    }
                }
                Err(NvmlError::Timeout) => return true,
                // With a lost device, every wait ends at once.
                Err(_) => return false,
            }
            timeout_ms = 0;
        }
        false
    }
}

/// Devices that NVML counts but does not open or identify, logged once for all of them.
#[derive(Default)]
struct LeftOut {
    first: Option<(u32, String)>,
    more: u32,
}

impl LeftOut {
    fn note(&mut self, index: u32, error: &NvmlError) {
        match self.first {
            None => self.first = Some((index, error.to_string())),
            Some(_) => self.more += 1,
        }
    }

    fn log(self) {
        if let Some((index, error)) = self.first {
            tracing::warn!(
                index,
                error,
                more = self.more,
                "NVML counts this device, but the agent cannot open or identify it"
            );
        }
    }
}
