//! Values that NVML identifies by a field number.
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::FieldValueSample;

/// The value of one field, if it is present and a count.
pub(super) fn count(values: &[Result<FieldValueSample, NvmlError>], id: u32) -> Option<u64> {
    let sample = values.iter().flatten().find(|sample| sample.field.0 == id)?;
    match sample.value.as_ref().ok()? {
        SampleValue::U32(value) => Some(u64::from(*value)),
        SampleValue::U64(value) => Some(*value),
        SampleValue::I64(value) => u64::try_from(*value).ok(),
        SampleValue::F64(_) => None,
    }
}
