//! Tests of who gets a place and who gives way, without sockets.
use std::net::Ipv4Addr;

use futures::FutureExt as _;

use super::*;

const BOUNDS: Bounds = Bounds { all: 4, of_peer: 3, reserved: 1, of_node: 2 };

fn peer(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// Places that were taken one after the other by these peers.
fn taken(places: &Arc<Places>, peers: &[u8]) -> Vec<Arc<Place>> {
    peers.iter().map(|number| Arc::new(places.take(peer(*number)).unwrap())).collect()
}

/// Which of them were told to give way since they were last asked.
#[track_caller]
fn check_left(all: &[Arc<Place>], expected: &[usize]) {
    let left = all.iter().enumerate().filter(|(_, place)| place.left().now_or_never().is_some());
    assert_eq!(left.map(|(at, _)| at).collect::<Vec<_>>(), expected);
}

#[test]
fn who_has_waited_longest_gives_way_to_one_more_than_there_may_be() {
    let places = Places::new(BOUNDS);
    let all = taken(&places, &[1, 2, 3, 4]);
    drop(all[0].busy());
    let more = taken(&places, &[5]);
    check_left(&all, &[1]);
    assert!(!more[0].is_reserved());
}

#[test]
fn of_the_peer_that_has_the_most_of_them_one_gives_way() {
    let places = Places::new(BOUNDS);
    let all = taken(&places, &[1, 2, 2, 3]);
    let _more = taken(&places, &[5]);
    check_left(&all, &[1]);
}

#[test]
fn a_peer_that_has_as_many_as_it_may_loses_its_own() {
    let places = Places::new(BOUNDS);
    let all = taken(&places, &[1, 2, 2, 2, 2]);
    check_left(&all, &[1]);
    let busy: Vec<_> = all[2..].iter().map(Place::busy).collect();
    // All of its own are being answered: what is left is where probes are.
    let more = taken(&places, &[2]);
    assert!(more[0].is_reserved());
    check_left(&all, &[]);
    drop(busy);
}

#[test]
fn where_all_are_being_answered_probes_still_have_a_place() {
    let places = Places::new(BOUNDS);
    let all = taken(&places, &[1, 2, 3, 4]);
    let busy: Vec<_> = all.iter().map(Place::busy).collect();
    let probes = taken(&places, &[5, 6]);
    assert!(probes.iter().all(|probe| probe.is_reserved()));
    check_left(&all, &[]);
    check_left(&probes, &[0]);
    let answered = probes[1].busy();
    assert!(places.take(peer(7)).is_none(), "it is being answered");
    drop((busy, answered));
    drop(all);
    assert!(!places.take(peer(7)).unwrap().is_reserved());
}

#[test]
fn one_that_has_proven_whose_it_is_gives_way_to_its_own_node_alone() {
    let places = Places::new(Bounds { reserved: 0, ..BOUNDS });
    let (one, other) = (NodeName::new("one").unwrap(), NodeName::new("other").unwrap());
    let all = taken(&places, &[1, 2, 3, 4]);
    all[0].proven(Some(&one));
    all[0].proven(Some(&other));
    all[1].proven(Some(&one));
    all[2].proven(None);
    let more = taken(&places, &[5]);
    check_left(&all, &[3]);
    more[0].proven(Some(&one));
    check_left(&all, &[0]);
    let last = taken(&places, &[6]);
    last[0].proven(Some(&other));
    assert!(places.take(peer(7)).is_none(), "nobody has to give way");
    // What was sent away is over, and its end changes nothing more.
    drop(all);
    let taken = places.taken();
    assert_eq!((taken.seats.len(), taken.seats.of_peer(peer(5))), (2, 1));
    drop(taken);
}

#[test]
fn nothing_is_left_of_places_that_are_over() {
    let places = Places::new(BOUNDS);
    let all = taken(&places, &[1, 2, 3, 4]);
    all[1].proven(Some(&NodeName::new("one").unwrap()));
    let busy = all[2].busy();
    drop((all, busy));
    let left = format!("{:?}", places.taken().seats);
    assert!(left.ends_with("places: {}, peers: {}, waiting: {}, ranks: {}, nodes: {} }"), "{left}");
}
