//! stub
use clap::Args;
/// stub
#[derive(Args)]
pub(crate) struct Ci {}
impl Ci {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
