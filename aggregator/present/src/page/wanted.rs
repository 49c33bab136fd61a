//! What a browser asks for: paths, and the parameters by which nodes are chosen and ordered. Pure; a parameter that means
//! nothing here is left out, since people type addresses.
use std::fmt::Write as _;

use crate::api::{Parameters, Refused, decoded};

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The cluster.
    Cluster(Query),
    /// One node.
    Node(String),
    /// One of the documents.
    Document(String),
}

/// Which nodes, in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Those whose name has this in it.
    pub name: String,
    /// Those in this condition.
    pub show: Show,
    /// In this order.
    pub sort: Sort,
    /// By figures of this resource. Empty: of the first.
    pub resource: String,
    /// Which part of them, from 1.
    pub page: usize,
}

/// Nodes in which condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of `nodes::Trouble`, which says what each is")]
pub enum Show {
    #[default]
    All,
    Trouble,
    Lost,
    Unhealthy,
    Stranded,
    Phantom,
    Overcommitted,
    Unadvertised,
    Silent,
    NotReady,
    Cordoned,
    Tainted,
}

/// Nodes in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Those with most trouble first.
    #[default]
    Trouble,
    /// By name.
    Name,
    /// Those with most free first.
    Free,
    /// Those with most held first.
    Held,
    /// Those with most in use first.
    Busy,
}

impl Show {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 12] = [
        Self::All,
        Self::Trouble,
        Self::Lost,
        Self::Unhealthy,
        Self::Stranded,
        Self::Phantom,
        Self::Overcommitted,
        Self::Unadvertised,
        Self::Silent,
        Self::NotReady,
        Self::Cordoned,
        Self::Tainted,
    ];

    /// In an address, and with a space for `_` on the page.
    pub fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Trouble => "trouble",
            Self::Lost => "lost",
            Self::Unhealthy => "unhealthy",
            Self::Stranded => "stranded",
            Self::Phantom => "phantom",
            Self::Overcommitted => "overcommitted",
            Self::Unadvertised => "unadvertised",
            Self::Silent => "silent",
            Self::NotReady => "not_ready",
            Self::Cordoned => "cordoned",
            Self::Tainted => "tainted",
        }
    }
}

impl Sort {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 5] = [Self::Trouble, Self::Name, Self::Free, Self::Held, Self::Busy];

    /// In an address.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "name",
            Self::Free => "free",
            Self::Held => "held",
            Self::Busy => "busy",
        }
    }
}

impl Wanted {
    /// What a path and its query ask for. Absent: it is no page's.
    pub fn parse(path: &str, query: &str) -> Option<Result<Self, Refused>> {
        let name = |name: &str| decoded(name);
        Some(match path {
            "/" => Query::parse(query).map(Self::Cluster),
            _ => match (path.strip_prefix("/node/"), path.strip_prefix("/docs/")) {
                (Some(node), _) if !node.is_empty() => name(node).map(Self::Node),
                (_, Some(document)) if !document.is_empty() => name(document).map(Self::Document),
                _ => return None,
            },
        })
    }
}

impl Query {
    fn parse(query: &str) -> Result<Self, Refused> {
        let mut wanted = Self { page: 1, ..Self::default() };
        for (name, value) in Parameters::parse(query)?.0 {
            let value = value.trim();
            match name.as_str() {
                "name" => value.clone_into(&mut wanted.name),
                "show" => wanted.show = Show::ALL.into_iter().find(|show| show.label() == value).unwrap_or_default(),
                "sort" => wanted.sort = Sort::ALL.into_iter().find(|sort| sort.label() == value).unwrap_or_default(),
                "resource" => value.clone_into(&mut wanted.resource),
                "page" => wanted.page = value.parse().unwrap_or(1).max(1),
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// The address of the page of it, with the nodes in sight.
    pub fn address(&self) -> String {
        let mut parameters = Vec::new();
        let mut push = |name: &str, value: &str| parameters.push(format!("{name}={}", encoded(value)));
        if !self.name.is_empty() {
            push("name", &self.name);
        }
        if self.show != Show::default() {
            push("show", self.show.label());
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
        let mark = if parameters.is_empty() { "" } else { "?" };
        format!("/{mark}{}#nodes", parameters.join("&"))
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

    fn check(path: &str, query: &str, expected: &Wanted) {
        assert_eq!(Wanted::parse(path, query).unwrap().unwrap(), *expected);
    }

    #[test]
    fn an_address_says_which_nodes_in_which_order() {
        check("/", "", &Wanted::Cluster(Query { page: 1, ..Query::default() }));
        let (name, resource) = ("a b&c".to_owned(), "cpu".to_owned());
        let query = Query { name, show: Show::NotReady, sort: Sort::Free, resource, page: 3 };
        let address = query.address();
        assert_eq!(address, "/?name=a%20b%26c&show=not_ready&sort=free&resource=cpu&page=3#nodes");
        let asked = address.trim_start_matches("/?").trim_end_matches("#nodes").to_owned();
        check("/", &asked, &Wanted::Cluster(query));
    }

    #[test]
    fn what_means_nothing_is_left_out() {
        check("/", "show=x&sort=&page=-1&utm=1", &Wanted::Cluster(Query { page: 1, ..Query::default() }));
        assert_eq!(Wanted::parse("/favicon.ico", ""), None);
        assert_eq!(Wanted::parse("/node/", ""), None);
        assert_eq!(Wanted::parse("/", "name=%ff"), Some(Err(Refused::Encoding)));
    }

    #[test]
    fn any_name_is_found_again_behind_its_address() {
        for name in ["gpu-17", "<script>/\"'&?#%", "\u{5d0}\u{202e}x"] {
            check(&of_node(name), "", &Wanted::Node(name.to_owned()));
        }
    }
}
