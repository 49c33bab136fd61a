//! The error counters of one device's NVLinks, and the calls that read them.
//!
//! The driver counts errors by link and kind. Where it also has the sums over all links, one call reads them. Where it has not,
//! each link in use is queried for each kind: up to [`LINKS_AT_MOST`] × 6 calls. So the session reads the counters of one device
//! a round.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings::{self as nv, field_id};

use super::raw;
use crate::sample::gpu::NvlinkErrors;

/// No device has more. A driver may always claim that there is one more.
const LINKS_AT_MOST: u32 = nv::NVML_NVLINK_MAX_LINKS;

/// The kinds: the field with the sum over all links, and the counter of one link.
const KINDS: [(u32, nv::nvmlNvLinkErrorCounter_t); 5] = [
    (
        field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
        nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY,
    ),
    (
        field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
        nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY,
    ),
    (
        field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
        nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT,
    ),
    (
        field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA,
    ),
    (
        field_id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL,
        nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA,
    ),
];

/// A count of each kind.
type Counts = [Option<u64>; KINDS.len()];

/// What is known of one device's counters.
#[derive(Default)]
pub(super) struct Nvlinks {
    way: Way,
    /// The last known counters.
    last: Option<NvlinkErrors>,
}

/// How a device's counters are read.
#[derive(Default)]
enum Way {
    /// The device was not queried yet, or did not respond.
    #[default]
    Unknown,
    /// The driver has sums over all links.
    Totals,
    /// Link by link. Holds the last values of each link, because the errors of a link that is no longer in use still
    /// count.
    ByLink(Vec<Counts>),
    /// It has no links, or no counters.
    Never,
}

impl Nvlinks {
    /// The last known counters.
    pub(super) fn last(&self) -> Option<NvlinkErrors> {
        self.last
    }

    /// Reads the counters, if the device has any. If it does not respond, the previous values are kept.
    pub(super) fn read(&mut self, device: &Device<'_>, calls: &mut u32) {
        if matches!(self.way, Way::Never) {
            return;
        }
        if matches!(self.way, Way::Unknown | Way::Totals) {
            *calls += 1;
            match totals(device) {
                Ok(Some(counts)) => {
                    self.way = Way::Totals;
                    self.last = Some(named(counts));
                    return;
                }
                // If the driver never had sums for this device, each link is queried.
                Ok(None) if matches!(self.way, Way::Unknown) => {}
                Err(error) if matches!(self.way, Way::Unknown) && lacks(&error) => {}
                Ok(None) | Err(_) => return,
            }
        }
        let mut links = match std::mem::take(&mut self.way) {
            Way::ByLink(links) => links,
            Way::Unknown | Way::Totals | Way::Never => Vec::new(),
        };
        let read = by_link(device, &mut links, calls);
        let sums = sums(&links);
        if read.is_ok() && sums.iter().any(Option::is_some) {
            self.last = Some(named(sums));
        }
        self.way = match read {
            Err(error) if lacks(&error) => Way::Never,
            // All links may be out of use at the moment, and the device may respond next time.
            Ok(()) | Err(_) => Way::ByLink(links),
        };
    }
}

/// The driver's sums over all links. `None` if it has none.
fn totals(device: &Device<'_>) -> Result<Option<Counts>, NvmlError> {
    let values = device.field_values_for(&KINDS.map(|(field, _)| FieldId(field)))?;
    let counts = KINDS.map(|(field, _)| super::fields::count(&values, field));
    Ok(counts.iter().any(Option::is_some).then_some(counts))
}

/// Reads each link that is in use. An error if no link could be read.
fn by_link(device: &Device<'_>, links: &mut Vec<Counts>, calls: &mut u32) -> Result<(), NvmlError> {
    for link in 0..LINKS_AT_MOST {
        *calls += 1;
        let is_active = match raw::nvlink_is_active(device, link) {
            Ok(is_active) => is_active,
            // The previous link was the last one.
            Err(NvmlError::InvalidArg) if link > 0 => break,
            Err(error) if link == 0 => return Err(error),
            Err(_) => continue,
        };
        let at = link as usize;
        links.resize(links.len().max(at + 1), Counts::default());
        if !is_active {
            continue;
        }
        for (count, (_, kind)) in links[at].iter_mut().zip(KINDS) {
            *calls += 1;
            if let Ok(errors) = raw::nvlink_errors(device, link, kind) {
                *count = Some(errors);
            }
        }
    }
    Ok(())
}

/// Whether a device reports that it will never have links.
fn lacks(error: &NvmlError) -> bool {
    matches!(error, NvmlError::NotSupported | NvmlError::InvalidArg) || raw::is_unknown_to_driver(error)
}

/// Sums over all links. `None` if no link has that counter.
fn sums(links: &[Counts]) -> Counts {
    let mut sums = Counts::default();
    for counts in links {
        for (sum, count) in sums.iter_mut().zip(counts) {
            if let Some(count) = count {
                *sum = Some(sum.unwrap_or(0).saturating_add(*count));
            }
        }
    }
    sums
}

/// In the order of [`KINDS`].
fn named([replay, recovery, crc_flit, crc_data, ecc_data]: Counts) -> NvlinkErrors {
    NvlinkErrors { replay, recovery, crc_flit, crc_data, ecc_data }
}
