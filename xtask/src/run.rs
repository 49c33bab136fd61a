//! stub
use clap::Args;
/// stub
#[derive(Args)]
pub(crate) struct Run {}
impl Run {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
