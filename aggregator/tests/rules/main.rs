//! What figures are made of what: objects and reports in, text out. One program, so that its libraries are linked once; it starts no
//! process and needs neither root nor a network. `cargo test -p mcad-aggregator --test rules NAME::`
mod api;
mod appwrappers;
mod cases;
mod dispatcher;
mod dump;
mod explain;
mod fit;
mod fit_search;
mod ladder;
mod missing;
mod neighbours;
mod own_port;
mod page;
mod placed;
mod properties;
mod requests;
mod room;
mod series;
mod slots;
mod used;
