//! Pages that stay open in a real browser while what they show goes away.
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Event};
use mcad_aggregator::server::Limits;
use mcad_aggregator::watch::Told;
use mcad_testkit::build::{node, object};
use serde_json::json;

use super::Live;
use super::chromium::Browser;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_does_not_stay_on_an_open_page() {
    let Some(browser) = Browser::start().await else { return };
    let limits = Limits { beat: Duration::from_millis(200), ..Limits::default() };
    let there = object(&node("n", json!({"cpu": "8", "nvidia.com/gpu": "8"})));
    let live = Live::start(Cluster::from_objects([there.clone()]), 3600, limits).await;
    let hear = |event| live.replica.hear(Told::Event(event));
    let cards = |number: u32| format!("document.querySelectorAll('.card').length === {number}");

    browser.open(&format!("{}/node/n", live.url)).await;
    // A part that the server does not send any more.
    let part =
        "window.loadedOnce = true; const part = document.createElement('div'); part.id = 'old'; part.dataset.live = '';
         part.textContent = 'what was'; document.querySelector('main').append(part)";
    browser.ask(part).await;
    assert_eq!(browser.ask(&format!("return {}", cards(3))).await, json!(true));
    hear(Event::Delete(there.clone()));
    browser.until("document.querySelector('main').innerText.includes('no node named n.')").await;
    browser.until(&cards(0)).await;
    assert_eq!(browser.ask("return document.getElementById('old').textContent").await, json!(""));
    // It comes back.
    hear(Event::Apply(there.clone()));
    browser.until(&cards(3)).await;
    assert_eq!(browser.ask("return window.loadedOnce").await, json!(true));

    // A resource that no node has any more, and one that a node has as the first, on the page of the cluster.
    browser.open(&live.url).await;
    browser.until(&cards(3)).await;
    hear(Event::Apply(object(&node("n", json!({"cpu": "8"})))));
    browser.until(&cards(2)).await;
    hear(Event::Apply(there));
    browser.until(&cards(3)).await;
    browser.end().await;
    live.end().await;
}
