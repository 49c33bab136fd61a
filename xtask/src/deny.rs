//! stub
use clap::Args;
/// stub
#[derive(Args)]
pub(crate) struct Deny {}
impl Deny {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
