//! `/api/v1`: which path asks for what, and which part of a long list is a page. Pure; what an answer says is
//! [`crate::explain`]'s, how it travels the server's.
//!
//! A page goes on after a name, so it is right whatever came or went since the page before; each is of its own snapshot.
use std::str;

use mcad_accounting::merge::Snapshot;
use mcad_accounting::now::Now;
use mcad_accounting::object::AppWrapperName;
use mcad_accounting::snapshot::{self, AppWrapperView};

use crate::explain::appwrapper::AppWrapper;
use crate::explain::cluster::Cluster;
use crate::explain::node::Node;
use crate::explain::why::Places;
use crate::explain::{Answer, Unanswered};

/// Where all of it is.
pub const ROOT: &str = "/api/v1/";

/// Entries of a page that does not say how many it wants: about a megabyte of nodes with eight GPUs each.
pub const DEFAULT_LIMIT: usize = 250;

/// The most entries of a page: it bounds what an answer takes in memory.
pub const MAX_LIMIT: usize = 1000;

/// What is asked for.
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
}

/// Which entries of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: usize,
    /// Those behind this name. Absent: from the first on.
    pub after: Option<String>,
}

/// Which AppWrappers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that wait.
    Waiting,
}

/// Why there is no answer; Display is what the client reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is nothing at that path.
    #[error(
        "here are /api/v1/cluster, /api/v1/nodes, /api/v1/nodes/NAME, /api/v1/appwrappers and \
         /api/v1/appwrappers/NAMESPACE/NAME"
    )]
    NoSuchPath,
    /// A parameter that the path does not take.
    #[error("{0} is no parameter here: lists take limit and continue, and AppWrappers also waiting=true")]
    Parameter(String),
    /// A parameter's value.
    #[error("limit is a number from 1 to {MAX_LIMIT}")]
    Limit,
    /// A parameter's value.
    #[error("waiting is true or false")]
    Waiting,
    /// A name that is not UTF-8 once it is decoded.
    #[error("the path or a parameter is not percent-encoded UTF-8")]
    Encoding,
    /// There is no such node, or none is known.
    #[error(transparent)]
    Node(#[from] Unanswered),
    /// There is no such AppWrapper.
    #[error("no AppWrapper is called {1} in namespace {0}")]
    NoSuchAppWrapper(String, String),
    /// AppWrappers are not known.
    #[error("AppWrappers are not known yet, or out of reach")]
    AppWrappersUnknown,
    /// There is no Kubernetes.
    #[error("there are no AppWrappers without Kubernetes (--cluster local)")]
    NoKubernetes,
}

impl Refused {
    /// The status code of HTTP that says it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Parameter(_) | Self::Limit | Self::Waiting | Self::Encoding => 400,
            Self::NoSuchPath
            | Self::Node(Unanswered::NoSuchNode(_))
            | Self::NoSuchAppWrapper(..)
            | Self::NoKubernetes => 404,
            Self::Node(Unanswered::NodesUnknown) | Self::AppWrappersUnknown => 503,
        }
    }
}

impl Wanted {
    /// What a path below [`ROOT`] and its query ask for.
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
            _ => Err(Refused::NoSuchPath),
        }
    }

    /// The answer from a snapshot that is looked at `now`.
    pub fn answer(&self, snapshot: &Snapshot, now: Now) -> Result<Answer, Refused> {
        let mut answer = Answer::of(snapshot, now);
        match self {
            Self::Cluster => answer.cluster = Some(Cluster::new(snapshot)),
            Self::Node(name) => answer.node = Some(Node::named(name, snapshot)?),
            Self::Nodes(page) => {
                let count = Node::count(snapshot).ok_or(Unanswered::NodesUnknown)?;
                let name_at = |at: &usize| Node::name_at(*at, snapshot);
                let (shown, more) = page.take((0..count).filter(|at| page.is_after(name_at(at))));
                answer.next = more.then(|| shown.last().map(|at| name_at(at).to_owned())).flatten();
                answer.nodes = Some(shown.into_iter().map(|at| Node::at(at, snapshot)).collect());
            }
            Self::AppWrappers(page, which) => {
                let (kubernetes, all) = appwrappers(snapshot)?;
                let wanted = all.appwrappers.iter().filter(|view| *which == Which::All || view.waiting.is_some());
                let after = |view: &&AppWrapperView| page.is_after_appwrapper(&view.appwrapper.name);
                let (shown, more) = page.take(wanted.filter(after));
                answer.next = more.then(|| shown.last().map(|view| full_name(&view.appwrapper.name))).flatten();
                let mut places = Places::new(kubernetes);
                answer.appwrappers = Some(shown.into_iter().map(|view| AppWrapper::new(view, &mut places)).collect());
            }
            Self::AppWrapper(name) => {
                let (kubernetes, all) = appwrappers(snapshot)?;
                let missing = || Refused::NoSuchAppWrapper(name.namespace.to_string(), name.name.to_string());
                let view = all.get(name).ok_or_else(missing)?;
                answer.appwrapper = Some(AppWrapper::new(view, &mut Places::new(kubernetes)));
            }
        }
        Ok(answer)
    }
}

fn appwrappers(snapshot: &Snapshot) -> Result<(&snapshot::Snapshot, &snapshot::AppWrappers), Refused> {
    let kubernetes = snapshot.kubernetes.as_ref().ok_or(Refused::NoKubernetes)?;
    Ok((kubernetes, kubernetes.appwrappers.as_ref().ok_or(Refused::AppWrappersUnknown)?))
}

fn full_name(name: &AppWrapperName) -> String {
    format!("{}/{}", name.namespace, name.name)
}

impl Page {
    fn is_after(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
    }

    /// AppWrappers are in order of namespace, then name: not the order of both as one text.
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

/// `%2F` and the like as what they stand for.
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
