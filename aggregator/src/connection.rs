//! The way to the API server: from a kubeconfig and its context, or as the pod that this runs in, to a client.
use anyhow::{Context as _, Result, bail};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig as Read};
use kube::{Client, Config};
use mcad_present::explain::amount::list;

use crate::args::kubeconfig::Kubeconfig;
use crate::clock::api::ApiClock;

/// Reads which API server to use, and how to authenticate to it.
pub async fn config(flags: &Kubeconfig) -> Result<Config> {
    let read = match (&flags.kubeconfig, &flags.context) {
        (Some(file), _) => Read::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?,
        (None, Some(_)) => Read::read().context("--context needs a kubeconfig ($KUBECONFIG, ~/.kube/config)")?,
        (None, None) => {
            return Config::infer().await.context(
                "there is no Kubernetes API server: neither a kubeconfig ($KUBECONFIG, ~/.kube/config) nor a pod's ServiceAccount can be \
                 used. Without one, --cluster file:PATH shows a dump, and --cluster local shows this machine's agents as the nodes",
            );
        }
    };
    if let Some(context) = &flags.context
        && !read.contexts.iter().any(|known| known.name == *context)
    {
        let known: Vec<_> = read.contexts.into_iter().map(|known| known.name).collect();
        let known = if known.is_empty() { "It has none".to_owned() } else { format!("It has {}", list(&known)) };
        bail!("the kubeconfig has no context {context}. {known}");
    }
    let options = KubeConfigOptions { context: flags.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(read, &options).await.context("the kubeconfig cannot be used")
}

/// A client for that API server. The clock learns the time from its responses.
pub fn client(config: Config, clock: &ApiClock) -> Result<Client> {
    let builder = ClientBuilder::try_from(config).context("cannot create a client for the API server")?;
    Ok(builder.with_layer(&clock.layer()).build())
}
