//! What a browser requests: paths, and the parameters that filter and sort the front page. Every filter is in the address, so an
//! address is a permanent link. Pure. Unknown parameters and values are ignored, since people type addresses.
use std::fmt::Write as _;

use super::condition::Condition;
use crate::api::{Parameters, Refused, decoded};

/// The most characters of a parameter's value that count. The longest name in Kubernetes is that of a resource: a prefix of 253
/// characters, a slash and 63 characters.
pub(super) const VALUE_CHARS: usize = 317;

/// The value of `pool` for nodes without a pool label. No label value can be this: label values begin with a letter or a digit.
const UNLABELLED: &str = "-";

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageQuery {
    /// The cluster.
    Cluster(ClusterQuery),
    /// One node, by name.
    Node(String),
    /// One of the documents, by name.
    Document(String),
}

/// What the front page shows: which nodes, in which order, and how AppWrappers are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterQuery {
    /// Words that a node must match by name, pool or state. Empty: every node matches.
    pub search: String,
    /// Nodes of this pool.
    pub pool: Pool,
    /// Nodes in this condition. `None` if the request has no condition: then a large cluster is shown by pool.
    pub show: Option<Condition>,
    /// The order of nodes.
    pub sort: Sort,
    /// Nodes are shown with their amounts of this resource. Empty: of the first resource.
    pub resource: String,
    /// The page of the list of nodes, from 1.
    pub page: usize,
    /// The order of waiting AppWrappers.
    pub appwrapper_sort: AppWrapperSort,
    /// The page of the list of queues, from 1.
    pub queue_page: usize,
}

/// Nodes of which pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// Of all pools.
    #[default]
    Any,
    /// Those without a pool label.
    Unlabelled,
    /// Those whose pool label has this value.
    Named(String),
}

/// The order of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Nodes with the worst problems first.
    #[default]
    Trouble,
    /// By name.
    Name,
    /// Nodes with the largest free amount first.
    Free,
    /// Nodes with the largest held amount first.
    Held,
    /// Nodes with the largest amount in use first.
    Busy,
}

/// The order of waiting AppWrappers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppWrapperSort {
    /// What they are sorted by.
    pub by: AppWrapperKey,
    /// Whether in the usual direction of that key.
    pub direction: Direction,
}

/// What waiting AppWrappers are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppWrapperKey {
    /// How long they have waited. Usually the longest first.
    #[default]
    Wait,
    /// What they request: accelerators, then CPU, then memory. Usually the largest first.
    Size,
    /// Namespace, then name. Usually from A to Z.
    Namespace,
}

/// A direction of sorting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The usual one of the key.
    #[default]
    Usual,
    /// The other one.
    Reversed,
}

impl Sort {
    /// All orders, as the page offers them.
    pub const ALL: [Self; 5] = [Self::Trouble, Self::Name, Self::Free, Self::Held, Self::Busy];

    /// Its name in an address.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "name",
            Self::Free => "free",
            Self::Held => "held",
            Self::Busy => "busy",
        }
    }

    /// Its name on the page.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Trouble => "problems first",
            Self::Name => "name",
            Self::Free => "most free first",
            Self::Held => "most held first",
            Self::Busy => "most in use first",
        }
    }
}

impl AppWrapperSort {
    /// All orders.
    pub const ALL: [Self; 6] = {
        let (wait, size, namespace) = (AppWrapperKey::Wait, AppWrapperKey::Size, AppWrapperKey::Namespace);
        let (usual, reversed) = (Direction::Usual, Direction::Reversed);
        [
            Self { by: wait, direction: usual },
            Self { by: wait, direction: reversed },
            Self { by: size, direction: usual },
            Self { by: size, direction: reversed },
            Self { by: namespace, direction: usual },
            Self { by: namespace, direction: reversed },
        ]
    };

    /// Its name in an address.
    pub fn label(self) -> &'static str {
        match (self.by, self.direction) {
            (AppWrapperKey::Wait, Direction::Usual) => "wait",
            (AppWrapperKey::Wait, Direction::Reversed) => "wait_ascending",
            (AppWrapperKey::Size, Direction::Usual) => "size",
            (AppWrapperKey::Size, Direction::Reversed) => "size_ascending",
            (AppWrapperKey::Namespace, Direction::Usual) => "namespace",
            (AppWrapperKey::Namespace, Direction::Reversed) => "namespace_descending",
        }
    }

    /// Whether the smallest value comes first.
    pub fn is_ascending(self) -> bool {
        (self.by == AppWrapperKey::Namespace) == (self.direction == Direction::Usual)
    }

    /// The order that a click on the column of `key` asks for: its usual one, and the reverse of it if that is the current one.
    #[must_use]
    pub fn after_click(self, key: AppWrapperKey) -> Self {
        let usual = Self { by: key, direction: Direction::Usual };
        if self == usual { Self { direction: Direction::Reversed, ..usual } } else { usual }
    }
}

impl Pool {
    fn parse(value: &str) -> Self {
        match value {
            "" => Self::Any,
            UNLABELLED => Self::Unlabelled,
            name => Self::Named(name.to_owned()),
        }
    }

    /// The pool of nodes whose pool label has that value. `None` if they have no pool label.
    pub(super) fn of(name: Option<&str>) -> Self {
        name.map_or(Self::Unlabelled, |name| Self::Named(name.to_owned()))
    }

    /// Its name in an address; empty for all pools.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Unlabelled => UNLABELLED,
            Self::Named(name) => name,
        }
    }

    /// Whether nodes are in it whose pool label has that value.
    pub(super) fn has(&self, label: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Unlabelled => label.is_none(),
            Self::Named(name) => label == Some(name),
        }
    }
}

impl PageQuery {
    /// What a path and its query request. `None` if no page is at that path.
    pub fn parse(path: &str, query: &str) -> Option<Result<Self, Refused>> {
        Some(match path {
            "/" => ClusterQuery::parse(query).map(Self::Cluster),
            _ => match (path.strip_prefix("/node/"), path.strip_prefix("/docs/")) {
                (Some(node), _) if !node.is_empty() => decoded(node).map(Self::Node),
                (_, Some(document)) if !document.is_empty() => decoded(document).map(Self::Document),
                _ => return None,
            },
        })
    }
}

impl Default for ClusterQuery {
    /// The front page without parameters.
    fn default() -> Self {
        Self {
            search: String::new(),
            pool: Pool::Any,
            show: None,
            sort: Sort::default(),
            resource: String::new(),
            page: 1,
            appwrapper_sort: AppWrapperSort::default(),
            queue_page: 1,
        }
    }
}

impl ClusterQuery {
    fn parse(query: &str) -> Result<Self, Refused> {
        let mut parsed = Self::default();
        for (name, value) in Parameters::parse(query)?.0 {
            let end = value.char_indices().nth(VALUE_CHARS).map_or(value.len(), |(at, _)| at);
            let value = value[..end].trim();
            match name.as_str() {
                // `name` is what older links have.
                "search" | "name" => value.clone_into(&mut parsed.search),
                "pool" => parsed.pool = Pool::parse(value),
                "show" => parsed.show = Condition::ALL.into_iter().find(|show| show.label() == value),
                "sort" => parsed.sort = Sort::ALL.into_iter().find(|sort| sort.label() == value).unwrap_or_default(),
                "resource" => value.clone_into(&mut parsed.resource),
                "page" => parsed.page = value.parse().unwrap_or(1).max(1),
                "queue_page" => parsed.queue_page = value.parse().unwrap_or(1).max(1),
                "appwrapper_sort" => {
                    let known = AppWrapperSort::ALL.into_iter().find(|sort| sort.label() == value);
                    parsed.appwrapper_sort = known.unwrap_or_default();
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Whether it selects or sorts nodes. If not, a large cluster is shown by pool.
    pub(super) fn lists_nodes(&self) -> bool {
        let Self { search, pool, show, sort, resource: _, page, appwrapper_sort: _, queue_page: _ } = self;
        !search.is_empty() || *pool != Pool::Any || show.is_some() || *sort != Sort::default() || *page > 1
    }

    /// The same with every node selected.
    #[must_use]
    pub(super) fn without_filters(&self) -> Self {
        let Self { resource, appwrapper_sort, queue_page, .. } = self;
        let (resource, appwrapper_sort, queue_page) = (resource.clone(), *appwrapper_sort, *queue_page);
        Self { resource, appwrapper_sort, queue_page, ..Self::default() }
    }

    /// The address of its page, with the section of this id in view.
    pub fn address(&self, section: &str) -> String {
        let mut parameters = Vec::new();
        let mut push = |name: &str, value: &str| parameters.push(format!("{name}={}", encoded(value)));
        if !self.search.is_empty() {
            push("search", &self.search);
        }
        if self.pool != Pool::Any {
            push("pool", self.pool.label());
        }
        if let Some(show) = self.show {
            push("show", show.label());
        }
        if self.sort != Sort::default() {
            push("sort", self.sort.label());
        }
        if !self.resource.is_empty() {
            push("resource", &self.resource);
        }
        if self.page > 1 {
            push("page", &self.page.to_string());
        }
        if self.appwrapper_sort != AppWrapperSort::default() {
            push("appwrapper_sort", self.appwrapper_sort.label());
        }
        if self.queue_page > 1 {
            push("queue_page", &self.queue_page.to_string());
        }
        let mark = if parameters.is_empty() { "" } else { "?" };
        format!("/{mark}{}#{section}", parameters.join("&"))
    }
}

/// The address of a node's own page.
pub fn of_node(name: &str) -> String {
    format!("/node/{}", encoded(name))
}

/// A text as a part of an address.
pub fn encoded(text: &str) -> String {
    let mut address = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            address.push(char::from(byte));
        } else {
            // Writing to a String has no error.
            let _ = write!(address, "%{byte:02X}");
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, query: &str, expected: &PageQuery) {
        assert_eq!(PageQuery::parse(path, query).unwrap().unwrap(), *expected);
    }

    fn check_address(query: ClusterQuery, expected: &str) {
        let address = query.address("nodes");
        assert_eq!(address, format!("/{expected}#nodes"));
        check("/", expected.trim_start_matches('?'), &PageQuery::Cluster(query));
    }

    #[test]
    fn an_address_has_every_filter() {
        check_address(ClusterQuery::default(), "");
        let query = ClusterQuery {
            search: "a b&c".to_owned(),
            pool: Pool::Named("NVIDIA-H100".to_owned()),
            show: Some(Condition::NotReady),
            sort: Sort::Free,
            resource: "cpu".to_owned(),
            page: 3,
            appwrapper_sort: AppWrapperSort { by: AppWrapperKey::Size, direction: Direction::Reversed },
            queue_page: 2,
        };
        let expected = "?search=a%20b%26c&pool=NVIDIA-H100&show=not_ready&sort=free&resource=cpu&page=3\
                        &appwrapper_sort=size_ascending&queue_page=2";
        check_address(query, expected);
        check_address(ClusterQuery { show: Some(Condition::All), ..ClusterQuery::default() }, "?show=all");
        check_address(ClusterQuery { pool: Pool::Unlabelled, ..ClusterQuery::default() }, "?pool=-");
    }

    #[test]
    fn every_value_is_found_by_its_name() {
        for show in Condition::ALL {
            let query = ClusterQuery { show: Some(show), ..ClusterQuery::default() };
            check_address(query, &format!("?show={}", show.label()));
        }
        for appwrapper_sort in AppWrapperSort::ALL {
            let query = ClusterQuery { appwrapper_sort, ..ClusterQuery::default() };
            let address = query.address("appwrappers");
            let query_of = address.trim_start_matches(['/', '?']).split('#').next().unwrap().to_owned();
            check("/", &query_of, &PageQuery::Cluster(query));
        }
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        let nothing = PageQuery::Cluster(ClusterQuery::default());
        check("/", "show=x&sort=&page=-1&pool=&appwrapper_sort=z&utm=1", &nothing);
        assert_eq!(PageQuery::parse("/favicon.ico", ""), None);
        assert_eq!(PageQuery::parse("/node/", ""), None);
        assert_eq!(PageQuery::parse("/", "name=%ff"), Some(Err(Refused::Encoding)));
    }

    #[test]
    fn a_value_is_cut_at_the_longest_name() {
        let long = "\u{e9}".repeat(VALUE_CHARS + 1);
        let expected = ClusterQuery { search: "\u{e9}".repeat(VALUE_CHARS), ..ClusterQuery::default() };
        check("/", &format!("search={}", encoded(&long)), &PageQuery::Cluster(expected));
    }

    #[test]
    fn older_links_still_search() {
        let expected = ClusterQuery { search: "gpu-11".to_owned(), ..ClusterQuery::default() };
        check("/", "name=gpu-11", &PageQuery::Cluster(expected));
    }

    #[test]
    fn a_second_click_on_a_column_reverses_it() {
        let first = AppWrapperSort::default();
        let reversed = first.after_click(AppWrapperKey::Wait);
        assert_eq!([first.label(), reversed.label()], ["wait", "wait_ascending"]);
        assert_eq!(reversed.after_click(AppWrapperKey::Wait), first);
        assert_eq!(reversed.after_click(AppWrapperKey::Namespace).label(), "namespace");
        let ascending = AppWrapperSort::ALL.map(AppWrapperSort::is_ascending);
        assert_eq!(ascending, [false, true, false, true, true, false]);
    }

    #[test]
    fn any_name_is_found_again_behind_its_address() {
        for name in ["gpu-17", "<script>/\"'&?#%", "\u{5d0}\u{202e}x"] {
            check(&of_node(name), "", &PageQuery::Node(name.to_owned()));
        }
    }
}
