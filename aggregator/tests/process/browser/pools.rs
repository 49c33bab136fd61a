//! Nodes by pool, the search and sorted tables in a real browser: what screen readers and keyboards need, and that every filter has
//! an address.
use mcad_accounting::cluster::Cluster;
use mcad_aggregator::server::Limits;
use mcad_testkit::build::object;
use serde_json::json;

use super::chromium::{Browser, axe};
use super::{Live, ROWS};

/// 60 nodes of three pools, some with problems, and 30 AppWrappers that wait.
fn three_pools() -> Cluster {
    let node = |at: usize| {
        let (pool, gpus) = [("NVIDIA-A100-SXM4-40GB", 4), ("NVIDIA-H100-80GB-HBM3", 8), ("", 0)][at % 3];
        let mut amounts = json!({"cpu": "96", "memory": "1Ti", "pods": "110"});
        let mut labels = json!({});
        if !pool.is_empty() {
            amounts["nvidia.com/gpu"] = json!(gpus.to_string());
            labels["nvidia.com/gpu.product"] = json!(pool);
        }
        let ready = if at % 19 == 4 { "False" } else { "True" };
        object(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{at:02}"), "uid": format!("n-{at}"), "labels": labels},
            "spec": {"unschedulable": at.is_multiple_of(20)},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": ready}]},
        }))
    };
    let waiting = |at: usize| {
        let requests = json!({"cpu": "64", "nvidia.com/gpu": (1 + at * 7 % 16).to_string()});
        object(&json!({
            "apiVersion": "workload.codeflare.dev/v1beta1", "kind": "AppWrapper",
            "metadata": {"name": format!("waiting-{at}"), "namespace": format!("team-{}", at % 4), "uid": format!("w-{at}"), "creationTimestamp": "2026-01-05T08:00:00Z"},
            "spec": {"resources": {"GenericItems": [{"generictemplate": {}, "custompodresources": [{"replicas": 2, "requests": requests}]}]}},
            "status": {"state": "Pending"},
        }))
    };
    Cluster::from_objects((0..60).map(node).chain((0..30).map(waiting)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_and_sorted_tables_are_for_everybody_in_both_themes() {
    let Some(browser) = Browser::start().await else { return };
    let axe = axe();
    let live = Live::start(three_pools(), 3600, Limits::default()).await;
    live.replica.refit();
    let paths = [
        "/",
        "/?pool=NVIDIA-H100-80GB-HBM3&show=not_ready#nodes",
        "/?search=node-1&sort=free&appwrapper_sort=namespace_descending#nodes",
        "/?search=nothing#nodes",
    ];
    browser.check_everywhere(axe.as_deref(), &live.url, &paths).await;
    for what in paths {
        browser.open(&format!("{}{what}", live.url)).await;
        let sorted = "return [...document.querySelectorAll('.waiting th[aria-sort]')].map(th => th.getAttribute('aria-sort')).filter(sort => sort !== 'none').length";
        assert_eq!(browser.ask(sorted).await, json!(1), "{what}");
    }
    // What is sorted by is reached by the keyboard on a narrow screen, too, and is in view there.
    browser.open(&live.url).await;
    let seen = "const link = [...document.querySelectorAll('.sort a')].find(a => a.textContent === 'Requests');
         link.focus(); const place = link.getBoundingClientRect();
         return document.elementFromPoint(place.left + 2, place.top + place.height / 2) === link";
    assert_eq!(browser.ask(seen).await, json!(true));
    browser.ask("document.activeElement.click()").await;
    let largest = "return [location.search, document.querySelector('.waiting .asks').innerText.includes('32 GPUs'), document.querySelector('[aria-sort=descending]').innerText.includes('Requests')]";
    assert_eq!(browser.ask(largest).await, json!(["?appwrapper_sort=size", true, true]));
    browser.end().await;
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_is_applied_while_one_types_and_every_step_has_an_address() {
    let Some(browser) = Browser::start().await else { return };
    let live = Live::start(three_pools(), 0, Limits::default()).await;
    browser.open(&live.url).await;
    browser.ask("window.loadedOnce = true").await;
    assert_eq!(browser.ask(ROWS).await, json!([3, 0]));
    // The form is in the order in which the tab key goes through it, every field has a label, and the number of matches is read out.
    let form = "return [...document.querySelector('form.filter').elements].map(field => (field.labels[0] ? field.labels[0].firstChild.innerText : '') + '|' + field.name + '|' + field.tabIndex)";
    let fields = ["Search|search|0", "Pool|pool|0", "State|show|0", "Sort by|sort|0", "Amounts of|resource|0", "||0"];
    assert_eq!(browser.ask(form).await, json!(fields));
    let live_region = "const matches = document.getElementById('matches'); return [matches.getAttribute('role'), document.querySelector('input[type=search]').getAttribute('aria-describedby')]";
    assert_eq!(browser.ask(live_region).await, json!(["status", "matches"]));

    browser.type_in("input[name=search]", "h100 not").await;
    browser.until("document.getElementById('matches').innerText.startsWith('1 of 60 nodes matches')").await;
    let now =
        "return [location.pathname + location.search + location.hash, document.activeElement.name, window.loadedOnce]";
    assert_eq!(browser.ask(now).await, json!(["/?search=h100+not#nodes", "search", true]));
    assert_eq!(browser.ask(ROWS).await, json!([1, 1]));
    // What is chosen is applied as well. The words of the search stay.
    browser.ask("const show = document.querySelector('select[name=show]'); show.value = 'cordoned'; show.dispatchEvent(new Event('input', {bubbles: true})); show.dispatchEvent(new Event('change', {bubbles: true}))").await;
    browser.until("document.getElementById('matches').innerText.startsWith('0 of 60 nodes match.')").await;
    assert_eq!(browser.ask("return location.search").await, json!("?search=h100+not&show=cordoned"));
    // Back, to the search: then to the pools. Forward again, all without a reload.
    let fields = "return [location.search, document.querySelector('input[name=search]').value, document.querySelector('select[name=show]').value, window.loadedOnce]";
    browser.driver.back().await.unwrap();
    browser.until("document.getElementById('matches').innerText.startsWith('1 of 60')").await;
    assert_eq!(browser.ask(fields).await, json!(["?search=h100+not", "h100 not", "", true]));
    browser.driver.back().await.unwrap();
    browser.until("document.getElementById('matches').innerText.startsWith('60 nodes in 3 pools.')").await;
    assert_eq!(browser.ask(fields).await, json!(["", "", "", true]));
    assert_eq!(browser.ask(ROWS).await, json!([3, 0]));
    browser.driver.forward().await.unwrap();
    browser.until("document.getElementById('matches').innerText.startsWith('1 of 60')").await;
    assert_eq!(browser.ask(fields).await, json!(["?search=h100+not", "h100 not", "", true]));
    // A reload shows the same.
    browser.driver.refresh().await.unwrap();
    browser.check_text("1 of 60 nodes matches.").await;
    assert_eq!(browser.ask(fields).await, json!(["?search=h100+not", "h100 not", "", null]));
    browser.end().await;
    live.end().await;
}
