//! stub
use clap::Args;
/// stub
#[derive(Args)]
pub(crate) struct Test {}
impl Test {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
