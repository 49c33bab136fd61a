//! A report as it lies in its bytes: for whoever reads thousands a second and keeps none of them.
//!
//! The messages of [`crate::report`] again, field by field, but that texts are parts of the bytes: nothing is made anew but lists,
//! which is half of what it costs to decode a report. What is read is what [`prost`] reads; a test holds one against the other.
mod fields;

pub use fields::{Fields, Malformed, Value};

use crate::report as owned;

/// A message that is read field by field.
trait Message<'a>: Default {
    fn field(&mut self, number: u32, value: Value<'a>) -> Result<(), Malformed>;

    fn merge(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next_field()? {
            self.field(number, value)?;
        }
        Ok(())
    }
}

/// What a field is read into. Of one that comes again the last one counts, as protobuf has it; messages are merged, lists go on.
trait Field<'a> {
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed>;
}

/// What can be a thing of its own.
trait ToOwned {
    type Owned;

    fn to_owned(&self) -> Self::Owned;
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident <$($life:lifetime)?> { $($number:literal $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name<$($life)?> {
            $(
                #[doc = concat!("[`", stringify!($field), "`](owned::", stringify!($name), "::", stringify!($field), ")")]
                pub $field: $type,
            )*
        }

        impl<'a> Message<'a> for $name<$($life)?> {
            #[inline]
            fn field(&mut self, number: u32, value: Value<'a>) -> Result<(), Malformed> {
                match number {
                    $($number => Field::fill(&mut self.$field, value),)*
                    // Of a later version.
                    _ => Ok(()),
                }
            }
        }

        impl<'a> ToOwned for $name<$($life)?> {
            type Owned = owned::$name;

            fn to_owned(&self) -> Self::Owned {
                owned::$name { $($field: ToOwned::to_owned(&self.$field),)* }
            }
        }
    )* };
}

messages! {
    /// [`owned::Report`]
    Report<'a> {
        1 version: u32,
        2 node: &'a str,
        3 boot_id: &'a str,
        4 started_at_ms: u64,
        5 sequence: u64,
        6 sampled_at_ms: u64,
        7 uptime_ns: u64,
        8 interval_ms: u64,
        9 agent_version: &'a str,
        10 machine: Option<Machine>,
        11 cgroups: Option<Cgroups<'a>>,
        12 gpus: Option<Gpus<'a>>,
        13 assignments: Option<Assignments<'a>>,
        14 absences: Vec<Absence<'a>>,
    }
    /// [`owned::Absence`]
    Absence<'a> {
        1 source: &'a str,
        2 reason: &'a str,
    }
    /// [`owned::Machine`]
    Machine<> {
        1 cpus_online: Option<u32>,
        2 cpu_busy_ns: Option<u64>,
        3 memory_total_bytes: Option<u64>,
        4 memory_free_bytes: Option<u64>,
        5 memory_inactive_file_bytes: Option<u64>,
    }
    /// [`owned::Cgroups`]
    Cgroups<'a> {
        1 source: &'a str,
        2 cgroups: Vec<Cgroup<'a>>,
        3 seen: Option<u32>,
        4 dropped: Option<u32>,
        5 from_files: Vec<&'a str>,
        6 ended_pods: Vec<EndedPod<'a>>,
    }
    /// [`owned::EndedPod`]
    EndedPod<'a> {
        1 uid: &'a str,
        2 id: u64,
        3 cpu_ns: Option<u64>,
        4 oom_kills: Option<u64>,
        5 run_queue_wait_ns: Option<u64>,
        6 run_queue_waits: Option<u64>,
        7 ended_uptime_ns: u64,
        8 watched: bool,
    }
    /// [`owned::Cgroup`]
    Cgroup<'a> {
        1 id: u64,
        2 path: &'a str,
        3 pod_uid: &'a str,
        4 container_id: &'a str,
        5 cpu_ns: Option<u64>,
        6 memory_bytes: Option<u64>,
        7 memory_inactive_file_bytes: Option<u64>,
        8 oom_kills: Option<u64>,
        9 run_queue_wait_ns: Option<u64>,
        10 run_queue_waits: Option<u64>,
        11 detail: Option<Box<CgroupDetail>>,
    }
    /// [`owned::CgroupDetail`]
    CgroupDetail<> {
        1 periods: Option<u64>,
        2 throttled_periods: Option<u64>,
        3 throttled_ns: Option<u64>,
        4 memory_peak_bytes: Option<u64>,
        5 memory_limit_bytes: Option<u64>,
        6 memory_anon_bytes: Option<u64>,
        7 memory_file_bytes: Option<u64>,
        8 memory_max_events: Option<u64>,
        9 memory_high_events: Option<u64>,
        10 pids: Option<u64>,
        11 pids_limit: Option<u64>,
        12 cpu_some_ns: Option<u64>,
        13 cpu_full_ns: Option<u64>,
        14 memory_some_ns: Option<u64>,
        15 memory_full_ns: Option<u64>,
        16 io_some_ns: Option<u64>,
        17 io_full_ns: Option<u64>,
        18 io_read_bytes: Option<u64>,
        19 io_written_bytes: Option<u64>,
    }
    /// [`owned::Gpus`]
    Gpus<'a> {
        1 driver_version: &'a str,
        2 devices: Vec<Gpu<'a>>,
        3 lost_bus_ids: Vec<&'a str>,
        4 remembered: Option<u32>,
        5 fake: bool,
    }
    /// [`owned::Gpu`]
    Gpu<'a> {
        1 uuid: &'a str,
        2 model: &'a str,
        3 bus_id: &'a str,
        4 mig_mode: Option<bool>,
        5 mig_instances: Vec<MigInstance<'a>>,
        6 unhealthy_reasons: Vec<&'a str>,
        7 utilization_ratio: Option<f64>,
        8 busy_ns: Option<u64>,
        9 memory_used_bytes: Option<u64>,
        10 memory_total_bytes: Option<u64>,
        11 xid_errors: Vec<XidErrors>,
        12 uses: Vec<GpuUse<'a>>,
        13 warnings: Vec<&'a str>,
        14 nvlink_errors: Option<Box<NvlinkErrors>>,
    }
    /// [`owned::NvlinkErrors`]
    NvlinkErrors<> {
        1 replay: Option<u64>,
        2 recovery: Option<u64>,
        3 crc_flit: Option<u64>,
        4 crc_data: Option<u64>,
        5 ecc_data: Option<u64>,
    }
    /// [`owned::GpuUse`]
    GpuUse<'a> {
        1 pod_uid: &'a str,
        2 container_id: &'a str,
        3 processes: u32,
        4 memory_used_bytes: Option<u64>,
        5 busy_ns: Option<u64>,
    }
    /// [`owned::MigInstance`]
    MigInstance<'a> {
        1 uuid: &'a str,
        2 profile: &'a str,
        3 gpu_instance: Option<u32>,
        4 compute_instance: Option<u32>,
        5 unhealthy_reasons: Vec<&'a str>,
        6 utilization_ratio: Option<f64>,
        7 busy_ns: Option<u64>,
        8 memory_used_bytes: Option<u64>,
        9 memory_total_bytes: Option<u64>,
        10 uses: Vec<GpuUse<'a>>,
    }
    /// [`owned::XidErrors`]
    XidErrors<> {
        1 xid: u64,
        2 count: u64,
    }
    /// [`owned::Assignments`]
    Assignments<'a> {
        1 assigned: Vec<Assignment<'a>>,
        2 allocatable: Vec<DeviceIds<'a>>,
    }
    /// [`owned::Assignment`]
    Assignment<'a> {
        1 namespace: &'a str,
        2 pod: &'a str,
        3 container: &'a str,
        4 resource: &'a str,
        5 device_ids: Vec<&'a str>,
        6 held_ns: Option<u64>,
    }
    /// [`owned::DeviceIds`]
    DeviceIds<'a> {
        1 resource: &'a str,
        2 device_ids: Vec<&'a str>,
    }
}

impl<'a> Report<'a> {
    /// The report that these bytes are.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read_with_room(bytes, 0)
    }

    /// The same with room for so many cgroups from the start: they are most of a report, and a list that grows is copied again and
    /// again.
    pub fn read_with_room(bytes: &'a [u8], cgroups: usize) -> Result<Self, Malformed> {
        let mut report = Self::default();
        if cgroups > 0 {
            report.cgroups = Some(Cgroups { cgroups: Vec::with_capacity(cgroups), ..Cgroups::default() });
        }
        report.merge(bytes)?;
        Ok(report)
    }

    /// It as a thing of its own.
    pub fn to_owned(&self) -> owned::Report {
        ToOwned::to_owned(self)
    }
}

macro_rules! numbers {
    ($($type:ty: $value:ident => $number:expr, $variant:ident;)*) => { $(
        impl Field<'_> for $type {
            #[inline]
            fn fill(&mut self, value: Value<'_>) -> Result<(), Malformed> {
                let Value::$variant($value) = value else { return Err(OTHER_TYPE) };
                *self = $number;
                Ok(())
            }
        }

        impl ToOwned for $type {
            type Owned = $type;

            fn to_owned(&self) -> $type {
                *self
            }
        }
    )* };
}

const OTHER_TYPE: Malformed = Malformed::Wrong("a field of another type");

numbers! {
    u64: value => value, Varint;
    // As protobuf has it: of a number that is too large, what is left of it.
    u32: value => value as u32, Varint;
    bool: value => value != 0, Varint;
    f64: value => f64::from_bits(value), Fixed64;
}

impl<'a> Field<'a> for &'a str {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let Value::Bytes(bytes) = value else { return Err(OTHER_TYPE) };
        *self = str::from_utf8(bytes).map_err(|_| Malformed::Wrong("a text that is not UTF-8"))?;
        Ok(())
    }
}

impl ToOwned for &str {
    type Owned = String;

    fn to_owned(&self) -> String {
        String::from(*self)
    }
}

impl<'a, M: Message<'a>> Field<'a> for M {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let Value::Bytes(message) = value else { return Err(OTHER_TYPE) };
        self.merge(message)
    }
}

impl<'a, T: Field<'a> + Default> Field<'a> for Option<T> {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        self.get_or_insert_default().fill(value)
    }
}

impl<'a, T: Field<'a> + Default> Field<'a> for Vec<T> {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        // In its place, as it may be large.
        self.push(T::default());
        self.last_mut().map_or(Ok(()), |element| element.fill(value))
    }
}

impl<'a> Field<'a> for Box<CgroupDetail> {
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        (**self).fill(value)
    }
}

impl<'a> Field<'a> for Box<NvlinkErrors> {
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        (**self).fill(value)
    }
}

impl<T: ToOwned> ToOwned for Option<T> {
    type Owned = Option<T::Owned>;

    fn to_owned(&self) -> Self::Owned {
        self.as_ref().map(T::to_owned)
    }
}

impl<T: ToOwned> ToOwned for Vec<T> {
    type Owned = Vec<T::Owned>;

    fn to_owned(&self) -> Self::Owned {
        self.iter().map(T::to_owned).collect()
    }
}

impl<T: ToOwned> ToOwned for Box<T> {
    type Owned = Box<T::Owned>;

    fn to_owned(&self) -> Self::Owned {
        Box::new((**self).to_owned())
    }
}

#[cfg(test)]
mod tests;
