//! Kueue's queues in a real browser: that everybody can read them, that their bars are drawn to scale, and that they come and go with Kueue.
use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::object::Kind;
use mcad_aggregator::server::Limits;
use mcad_aggregator::watch::Told;
use mcad_testkit::explained::{dumped, root};
use serde_json::json;

use super::chromium::{Browser, axe};
use super::{Live, process};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_for_everybody_and_their_bars_are_drawn_to_scale() {
    let Some(browser) = Browser::start().await else { return };
    let axe = axe();
    let (_aggregator, url) = process(&root().join("tests/cases/queue-2.yaml"), None);
    browser.check_everywhere(axe.as_deref(), &url, &["/", "/?search=h-1#queues"]).await;
    browser.open(&url).await;
    browser.check_text("Queues promise 48 GPUs; there is hardware for 33.").await;
    // The tree leads to each queue.
    browser.ask("document.querySelector('.cohorts a[href=\"#queue-vision\"]').click()").await;
    let vision = "return [location.hash, document.querySelector(location.hash + ' h3').innerText]";
    assert_eq!(browser.ask(vision).await, json!(["#queue-vision", "vision"]));

    let (_aggregator, url) = process(&root().join("tests/cases/queue-1.yaml"), None);
    browser.open(&url).await;
    // Of 40 that it has or could borrow: a quota of 16 without hardware and 19 borrowed; below, 17 held, 1 held by others, 17 held by none.
    let widths = "return [...document.querySelector('#queue-red-cluster-queue .bar.quota').querySelectorAll('rect')]
         .map(rect => [rect.getAttribute('class'), Number(rect.getAttribute('width'))])";
    let expected = json!([
        ["ground", 1000],
        ["broken", 400],
        ["borrowed", 475],
        ["appwrapper", 425],
        ["other", 25],
        ["stuck", 425]
    ]);
    assert_eq!(browser.ask(widths).await, expected);
    // Colours are not inherited from something else, and the hatch is there.
    let fills = "return ['broken', 'borrowed', 'stuck'].map(part => getComputedStyle(document.querySelector('#queue-red-cluster-queue .' + part)).fill)";
    let fills = browser.ask(fills).await;
    assert!(fills[0].as_str().unwrap().contains("#hatch") && fills[1] != fills[2], "{fills}");
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_come_and_go_on_an_open_page() {
    let Some(browser) = Browser::start().await else { return };
    let limits = Limits { beat: std::time::Duration::from_millis(200), ..Limits::default() };
    let of_kueue = |kind| {
        matches!(kind, Kind::ClusterQueue | Kind::LocalQueue | Kind::Cohort | Kind::ResourceFlavor | Kind::Workload)
    };
    let all = dumped("cases/queue-1.yaml");
    let kueue: Vec<_> = all.iter().filter(|object| of_kueue(object.kind())).cloned().collect();
    let live = Live::start(Cluster::from_objects(all), 3600, limits).await;
    live.replica.refit();
    let shown = "document.querySelectorAll('#queues .queue').length === 3";
    browser.open(&live.url).await;
    browser.ask("window.loadedOnce = true").await;
    browser.until(shown).await;
    for object in &kueue {
        live.replica.hear(Told::Event(Event::Delete(object.clone())));
    }
    live.replica.refit();
    browser.until("document.querySelectorAll('#queues').length === 0").await;
    for object in kueue {
        live.replica.hear(Told::Event(Event::Apply(object)));
    }
    live.replica.refit();
    browser.until(shown).await;
    assert_eq!(browser.ask("return window.loadedOnce").await, json!(true));
    browser.end().await;
    live.end().await;
}
