//! The cost of eBPF programs as the kernel measures it, for benchmarks: how long each ran and how often.
//!
//! The kernel reads its clock before and after each run, so it reports some 50 ns even for an empty program. An empty
//! program is attached at the same place as the measured ones; the difference is their cost.

use std::{collections::HashMap, io, os::fd::OwnedFd, path::Path};

use aya::{
    Btf, EbpfLoader,
    programs::{loaded_programs, tp_btf::BtfTracePointLink},
    sys::{Stats, enable_stats},
};
use mcad_wire::abi;

use super::{OBJECT, ProbeError, run_queue};

/// The measurement, active for as long as this value lives, with an empty program attached to the task switch.
#[derive(Debug)]
pub struct CostAccount {
    /// The latest program of each name: other processes may run probes with the same names.
    ids: HashMap<&'static str, u32>,
    _account: OwnedFd,
    _link: BtfTracePointLink,
}

/// Time and runs of one program, as totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Total time of all runs.
    pub time_ns: u64,
    /// Number of runs.
    pub runs: u64,
}

impl CostAccount {
    /// Measures the empty program and the run-queue program, which must be attached. Needs CAP_SYS_ADMIN.
    pub fn open(btf_path: &Path) -> Result<Self, ProbeError> {
        let btf = Btf::parse_file(btf_path, aya::Endianness::default())
            .map_err(|source| ProbeError::Btf { path: btf_path.to_owned(), source })?;
        let mut probes = EbpfLoader::new().btf(Some(&btf)).load(OBJECT).map_err(ProbeError::Load)?;
        let link = run_queue::at_switch(&mut probes, &btf, abi::EMPTY_PROGRAM)?;
        let account = enable_stats(Stats::RunTime).map_err(|error| ProbeError::Account(error.io_error))?;
        let mut ids = HashMap::new();
        for program in loaded_programs().filter_map(Result::ok) {
            let known = [abi::EMPTY_PROGRAM, abi::RUN_QUEUE_PROGRAM];
            if let Some(name) = known.into_iter().find(|name| program.name_as_str() == Some(name)) {
                let latest = ids.entry(name).or_default();
                *latest = program.id().max(*latest);
            }
        }
        Ok(Self { ids, _account: account, _link: link })
    }

    /// The cost of the empty program and of the run-queue program.
    pub fn read(&self) -> Result<[ProgramCost; 2], ProbeError> {
        let mut costs = [abi::EMPTY_PROGRAM, abi::RUN_QUEUE_PROGRAM].map(|name| (self.ids.get(name), None));
        for program in loaded_programs().filter_map(Result::ok) {
            for (id, cost) in &mut costs {
                if *id == Some(&program.id()) {
                    let time_ns = u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX);
                    *cost = Some(ProgramCost { time_ns, runs: program.run_count() });
                }
            }
        }
        match costs {
            [(_, Some(empty)), (_, Some(run_queue))] => Ok([empty, run_queue]),
            _ => Err(ProbeError::Account(io::ErrorKind::NotFound.into())),
        }
    }
}
