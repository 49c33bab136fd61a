//! `/api/v1`: parses paths and parameters, and cuts long lists into pages. Pure; [`crate::explain`] owns the content of the
//! answers, the server their transport.
//!
//! A page continues after a name, so it is correct even if entries were added or removed since the page before; each page is
//! made from its own snapshot.
use std::str;

use mcad_accounting::now::Now;
use mcad_accounting::object::AppWrapperName;
use mcad_accounting::queue::Accounts;
use mcad_accounting::snapshot::{AppWrapperView, AppWrappers, Snapshot};

use crate::explain::appwrapper::AppWrapper;
use crate::explain::cluster::Cluster;
use crate::explain::node::NodeEntry;
use crate::explain::queues::{Flavor, NoQueues, Queue};
use crate::explain::why::Places;
use crate::explain::{Answer, Unanswered};

/// The prefix of all paths.
pub const ROOT: &str = "/api/v1/";

/// Entries of a page if the request has no `limit`: about a megabyte of nodes with eight GPUs each.
pub const DEFAULT_LIMIT: usize = 250;

/// The most entries of a page: it bounds the memory of an answer.
pub const MAX_LIMIT: usize = 1000;

/// What is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The cluster.
    Cluster,
    /// Nodes.
    Nodes(Page),
    /// One node.
    Node(String),
    /// AppWrappers.
    AppWrappers(Page, Which),
    /// One AppWrapper.
    AppWrapper(AppWrapperName),
    /// ClusterQueues.
    Queues(Page),
    /// One ClusterQueue.
    Queue(String),
    /// ResourceFlavors.
    Flavors(Page),
}

/// Which entries of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The most entries.
    pub limit: usize,
    /// Only entries after this name. `None` if the page starts at the first entry.
    pub after: Option<String>,
}

/// Which AppWrappers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Only waiting AppWrappers.
    Waiting,
}

/// Why a request is refused; the client reads the Display text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The path does not exist.
    #[error(
        "not found: the paths are /api/v1/cluster, /api/v1/nodes, /api/v1/nodes/NAME, /api/v1/appwrappers, \
         /api/v1/appwrappers/NAMESPACE/NAME, /api/v1/queues, /api/v1/queues/NAME and /api/v1/flavors"
    )]
    NoSuchPath,
    /// A parameter that the path does not take.
    #[error("unknown parameter {0}: lists take limit and continue, and AppWrappers also take waiting=true")]
    Parameter(String),
    /// The value of `limit`.
    #[error("limit must be a number from 1 to {MAX_LIMIT}")]
    Limit,
    /// The value of `waiting`.
    #[error("waiting must be true or false")]
    Waiting,
    /// A name that is not UTF-8 after decoding.
    #[error("the path or a parameter is not percent-encoded UTF-8")]
    Encoding,
    /// The node does not exist, or Nodes are not known.
    #[error(transparent)]
    Node(#[from] Unanswered),
    /// The AppWrapper does not exist.
    #[error("no AppWrapper named {1} in namespace {0}")]
    NoSuchAppWrapper(String, String),
    /// AppWrappers are not known.
    #[error("AppWrappers are not known: not listed yet, or the API server cannot be reached")]
    AppWrappersUnknown,
    /// The aggregator runs without Kubernetes.
    #[error("there are no AppWrappers without Kubernetes (--cluster local)")]
    NoKubernetes,
    /// The ClusterQueue does not exist.
    #[error("no ClusterQueue named {0}")]
    NoSuchQueue(String),
    /// Kueue is not there.
    #[error("there are no queues: Kueue is not installed")]
    NoKueue,
    /// Queues are not known.
    #[error(
        "queues are not known: not listed yet, they cannot be listed, they are not in the dump, one of their objects exceeds a limit, \
         or --queue-metrics is off"
    )]
    QueuesUnknown,
}

impl Refused {
    /// The HTTP status code of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Parameter(_) | Self::Limit | Self::Waiting | Self::Encoding => 400,
            Self::NoSuchPath
            | Self::Node(Unanswered::NoSuchNode(_))
            | Self::NoSuchAppWrapper(..)
            | Self::NoKubernetes
            | Self::NoSuchQueue(_)
            | Self::NoKueue => 404,
            Self::Node(Unanswered::NodesUnknown) | Self::AppWrappersUnknown | Self::QueuesUnknown => 503,
        }
    }
}

impl Wanted {
    /// Parses a path below [`ROOT`] and its query.
    pub fn parse(path: &str, query: &str) -> Result<Self, Refused> {
        let parameters = Parameters::parse(query)?;
        let parts: Vec<&str> = path.strip_prefix(ROOT).ok_or(Refused::NoSuchPath)?.split('/').collect();
        let alone = |wanted| parameters.none().map(|()| wanted);
        match parts[..] {
            ["cluster"] => alone(Self::Cluster),
            ["nodes"] => Ok(Self::Nodes(parameters.page()?)),
            ["nodes", name] => alone(Self::Node(decoded(name)?)),
            ["appwrappers"] => parameters.appwrappers(),
            ["appwrappers", namespace, name] => alone(Self::AppWrapper(AppWrapperName {
                namespace: decoded(namespace)?.into(),
                name: decoded(name)?.into(),
            })),
            ["queues"] => Ok(Self::Queues(parameters.page()?)),
            ["queues", name] => alone(Self::Queue(decoded(name)?)),
            ["flavors"] => Ok(Self::Flavors(parameters.page()?)),
            _ => Err(Refused::NoSuchPath),
        }
    }

    /// The answer from a snapshot; ages are those at `now`.
    pub fn answer(&self, snapshot: &Snapshot, now: Now) -> Result<Answer, Refused> {
        let mut answer = Answer::of(snapshot, now);
        match self {
            Self::Cluster => answer.cluster = Some(Cluster::new(snapshot)),
            Self::Node(name) => answer.node = Some(NodeEntry::named(name, snapshot)?),
            Self::Nodes(page) => {
                let views = &snapshot.nodes.as_ref().ok_or(Unanswered::NodesUnknown)?.nodes;
                let (shown, more) = page.take(views.iter().filter(|view| page.is_after(&view.node.name)));
                answer.next = more.then(|| shown.last().map(|view| (*view.node.name).to_owned())).flatten();
                answer.nodes = Some(shown.into_iter().map(|view| NodeEntry::new(view, snapshot)).collect());
            }
            Self::AppWrappers(page, which) => {
                let all = appwrappers(snapshot)?;
                let wanted = all.appwrappers.iter().filter(|view| *which == Which::All || view.waiting.is_some());
                let after = |view: &&AppWrapperView| page.is_after_appwrapper(&view.appwrapper.name);
                let (shown, more) = page.take(wanted.filter(after));
                answer.next = more.then(|| shown.last().map(|view| full_name(&view.appwrapper.name))).flatten();
                let mut places = Places::new(snapshot);
                answer.appwrappers = Some(shown.into_iter().map(|view| AppWrapper::new(view, &mut places)).collect());
            }
            Self::AppWrapper(name) => {
                let all = appwrappers(snapshot)?;
                let missing = || Refused::NoSuchAppWrapper(name.namespace.to_string(), name.name.to_string());
                let view = all.get(name).ok_or_else(missing)?;
                answer.appwrapper = Some(AppWrapper::new(view, &mut Places::new(snapshot)));
            }
            Self::Queues(page) => {
                let all = queues(snapshot)?;
                let (shown, more) = page.take(all.queues.iter().filter(|account| page.is_after(&account.queue.name)));
                answer.next = more.then(|| shown.last().map(|account| (*account.queue.name).to_owned())).flatten();
                answer.queues = Some(shown.into_iter().map(|account| Queue::new(account, all)).collect());
            }
            Self::Queue(name) => {
                let all = queues(snapshot)?;
                let account = all.queues.iter().find(|account| *account.queue.name == **name);
                answer.queue = Some(Queue::new(account.ok_or_else(|| Refused::NoSuchQueue(name.clone()))?, all));
            }
            Self::Flavors(page) => {
                let all = queues(snapshot)?;
                let (shown, more) = page.take(all.flavors.iter().filter(|account| page.is_after(&account.name)));
                answer.next = more.then(|| shown.last().map(|account| (*account.name).to_owned())).flatten();
                answer.flavors = Some(shown.into_iter().map(Flavor::new).collect());
            }
        }
        Ok(answer)
    }
}

fn appwrappers(snapshot: &Snapshot) -> Result<&AppWrappers, Refused> {
    let unknown = if snapshot.has_kubernetes() { Refused::AppWrappersUnknown } else { Refused::NoKubernetes };
    snapshot.appwrappers.as_ref().ok_or(unknown)
}

fn queues(snapshot: &Snapshot) -> Result<&Accounts, Refused> {
    let unknown = match NoQueues::of(snapshot) {
        Some(NoQueues::NotInstalled) => Refused::NoKueue,
        Some(NoQueues::NotKnown) | None => Refused::QueuesUnknown,
    };
    snapshot.queues.as_deref().ok_or(unknown)
}

fn full_name(name: &AppWrapperName) -> String {
    format!("{}/{}", name.namespace, name.name)
}

impl Page {
    fn is_after(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
    }

    /// AppWrappers are in order of namespace, then name, which differs from the order of `namespace/name` as one text.
    fn is_after_appwrapper(&self, name: &AppWrapperName) -> bool {
        let Some(after) = &self.after else { return true };
        let (namespace, last) = after.split_once('/').unwrap_or((after, ""));
        (&*name.namespace, &*name.name) > (namespace, last)
    }

    /// The entries of the page, and whether there are more.
    fn take<T>(&self, mut entries: impl Iterator<Item = T>) -> (Vec<T>, bool) {
        let shown = entries.by_ref().take(self.limit).collect();
        (shown, entries.next().is_some())
    }
}

/// The parameters of a query, decoded.
pub(crate) struct Parameters(pub(crate) Vec<(String, String)>);

impl Parameters {
    pub(crate) fn parse(query: &str) -> Result<Self, Refused> {
        let parameter = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(&value.replace('+', " "))?))
        };
        query.split('&').filter(|pair| !pair.is_empty()).map(parameter).collect::<Result<_, _>>().map(Self)
    }

    fn none(&self) -> Result<(), Refused> {
        self.0.first().map_or(Ok(()), |(name, _)| Err(Refused::Parameter(name.clone())))
    }

    fn page(self) -> Result<Page, Refused> {
        let mut page = Page { limit: DEFAULT_LIMIT, after: None };
        for (name, value) in self.0 {
            match name.as_str() {
                "limit" => page.limit = limit(&value)?,
                "continue" => page.after = Some(value).filter(|value| !value.is_empty()),
                _ => return Err(Refused::Parameter(name)),
            }
        }
        Ok(page)
    }

    fn appwrappers(self) -> Result<Wanted, Refused> {
        let (waiting, rest) = self.0.into_iter().partition(|(name, _)| name == "waiting");
        let waiting: Vec<(String, String)> = waiting;
        let which = match waiting.last().map(|(_, value)| value.as_str()) {
            None | Some("false") => Which::All,
            Some("true") => Which::Waiting,
            Some(_) => return Err(Refused::Waiting),
        };
        Ok(Wanted::AppWrappers(Self(rest).page()?, which))
    }
}

fn limit(value: &str) -> Result<usize, Refused> {
    value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or(Refused::Limit)
}

/// Decodes percent-encoding such as `%2F`.
pub(crate) fn decoded(text: &str) -> Result<String, Refused> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2).ok_or(Refused::Encoding)?;
                rest = behind;
                let digits = str::from_utf8(digits).ok().filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
                u8::from_str_radix(digits.ok_or(Refused::Encoding)?, 16).map_err(|_| Refused::Encoding)?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| Refused::Encoding)
}
