//! The page in a real browser: headless Chromium, driven by WebDriver. Without a browser or axe-core, these tests are skipped and say so.
//!
//! `cargo xtask test` brings both. With `MCAD_SCREENSHOTS=FOLDER` the last test writes the pictures of the README there.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]
mod chromium;
mod open;
mod pools;
mod queues;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::aggregator::{Aggregator, exchange, post};
use crate::support::wait::PATIENCE;
use chromium::{Browser, axe};
use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::known::Known;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::server::{self, Guard, Limits, Listeners};
use mcad_aggregator::watch::Told;
use mcad_testkit::NOW_MS;
use mcad_testkit::build::object;
use mcad_testkit::explained::{dumped, root};
use mcad_wire::report::Report;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The aggregator's own process on a dump, and where its page is.
fn process(dump: &Path, reports: Option<&Path>) -> (Aggregator, String) {
    let (cluster, reports) = (format!("file:{}", dump.display()), reports.map(|reports| reports.display().to_string()));
    let reports = reports.as_ref().map(|reports| ["--reports", reports]);
    let aggregator =
        Aggregator::start(&[&["--cluster", &cluster][..], reports.as_ref().map_or(&[], |flag| flag)].concat());
    let url = format!("http://{}", aggregator.metrics);
    (aggregator, url)
}

/// That of a cluster with every kind of trouble.
fn scene() -> (Aggregator, String) {
    process(&root().join("tests/scene/cluster.yaml"), Some(&root().join("tests/scene/reports.json")))
}

/// The same in this process, where it goes on: its clock is turned by hand, and agents report when they are told to.
struct Live {
    replica: Arc<Replica>,
    seconds: Arc<AtomicU64>,
    url: String,
    reports: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Live {
    async fn start(cluster: Cluster, began_s: u64, limits: Limits) -> Self {
        let seconds = Arc::new(AtomicU64::new(began_s));
        let hand = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || {
            let seconds = hand.load(Ordering::SeqCst);
            Now { since_start: Duration::from_secs(seconds), unix_ms: NOW_MS as u64 - 3_600_000 + seconds * 1000 }
        });
        let known = Known::new(cluster, Options::default(), Ages::Count);
        let replica = Arc::new(Replica::new(clock, known, SelfMetrics::new().unwrap()));
        let any = "127.0.0.1:0";
        let listeners = Listeners {
            report_runtime: tokio::runtime::Handle::current(),
            metrics: TcpListener::bind(any).await.unwrap(),
            reports: TcpListener::bind(any).await.unwrap(),
        };
        let url = format!("http://{}", listeners.metrics.local_addr().unwrap());
        let reports = listeners.reports.local_addr().unwrap();
        let (stop, asked) = oneshot::channel();
        let serving =
            server::run(listeners, Arc::clone(&replica), Guard::default(), limits, async { drop(asked.await) });
        Self { replica, seconds, url, reports, stop, served: tokio::spawn(serving) }
    }

    fn send(&self, report: &Report) {
        let answer = exchange(&self.reports.to_string(), &post(report, None), PATIENCE).unwrap();
        assert!(answer.contains(" 204 "), "{answer}");
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap();
    }
}

/// How many rows the tables of pools and of nodes have.
const ROWS: &str =
    "return ['pools', 'nodes'].map(table => document.querySelectorAll('.' + table + ' tbody tr').length)";

/// What the agents of the scene report, the first and the second time.
fn scene_reports() -> Vec<Report> {
    let text = std::fs::read_to_string(root().join("tests/scene/reports.json")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The same of a later time.
fn later(report: &Report, sequence: u64) -> Report {
    Report { sequence, uptime_ns: (1000 + 10 * sequence) * 1_000_000_000, ..report.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_trouble_is_shown_in_both_themes_and_everybody_can_read_it() {
    let Some(browser) = Browser::start().await else { return };
    let axe = axe();
    let (_aggregator, url) = scene();
    let paths = [
        "/",
        "/?search=gpu-1&appwrapper_sort=size",
        "/node/gpu-14",
        "/node/gpu-17",
        "/node/gone",
        "/docs/metrics",
        "/docs/figures",
        "/docs/gone",
    ];
    browser.check_everywhere(axe.as_deref(), &url, &paths).await;
    browser.open(&url).await;
    browser.check_text("69 GPUs advertised, 70 work, 40 held, 24.8 busy; 10 free, largest block 4.").await;
    for trouble in [
        "lost",
        "unhealthy",
        "phantom",
        "unadvertised",
        "not ready",
        "cordoned",
        "tainted",
        "overcommitted",
        "no agent",
    ] {
        browser.check_text(trouble).await;
    }
    let colours = "return [getComputedStyle(document.body).color, matchMedia('(prefers-color-scheme: dark)').matches]";
    assert_eq!(browser.ask(colours).await, json!(["rgb(230, 232, 234)", true]));
    // A figure leads to what it is.
    browser.ask("document.querySelector('.sentence a[href$=mcad_cluster_free]').click()").await;
    let named =
        "return [location.pathname, document.querySelector(location.hash).innerText.includes('mcad_cluster_free')]";
    assert_eq!(browser.ask(named).await, json!(["/docs/metrics", true]));
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_with_little_in_it_and_machines_without_kubernetes_are_for_everybody_to_read() {
    let Some(browser) = Browser::start().await else { return };
    let axe = axe();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.yaml");
    std::fs::write(&path, mcad_testkit::build::v1beta2("w", json!([]), "Suspended").to_string()).unwrap();
    let (_aggregator, url) = process(&path, None);
    browser.check_everywhere(axe.as_deref(), &url, &["/", "/node/n"]).await;
    browser.open(&url).await;
    browser.check_text("The dump is incomplete").await;
    browser.check_text("Nodes are not known.").await;

    let live = Live::start(Cluster::of_agents(), 3600, Limits::default()).await;
    for report in scene_reports() {
        live.send(&report);
        live.seconds.fetch_add(1, Ordering::SeqCst);
    }
    browser.check_everywhere(axe.as_deref(), &live.url, &["/", "/node/gpu-14"]).await;
    browser.open(&live.url).await;
    browser.check_text("Kubernetes is not used").await;
    browser.end().await;
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_asked_elsewhere_would_be_seen() {
    let Some(browser) = Browser::start().await else { return };
    // A port that was free a moment ago.
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    browser.driver.goto(format!("data:text/html,<img src=http://{elsewhere}/x.png>")).await.unwrap();
    let requested = browser.requested();
    assert!(requested.contains(&format!("http://{elsewhere}/x.png")), "{requested:?}");
    // Ours would not be let: its policy refuses, and says so to the page.
    let (_aggregator, url) = scene();
    browser.open(&url).await;
    let script = format!(
        "const done = arguments[arguments.length - 1];
         document.addEventListener('securitypolicyviolation', e => done([e.effectiveDirective, e.blockedURI]));
         const image = new Image(); image.src = 'http://{elsewhere}/y.png';"
    );
    let refused = browser.driver.execute_async(&*script, Vec::new()).await.unwrap().json().clone();
    assert_eq!(refused, json!(["img-src", format!("http://{elsewhere}/y.png")]));
    // The log has it all the same, so that nothing can hide behind the policy.
    assert!(browser.requested().contains(&format!("http://{elsewhere}/y.png")));
    browser.open(&url).await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_script_it_says_the_same() {
    let Some(browser) = Browser::start().await else { return };
    let (_aggregator, url) = scene();
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    for path in ["/", "/?show=cordoned&resource=cpu#nodes", "/node/gpu-13"] {
        browser.open(&format!("{url}{path}")).await;
        let html = browser.driver.source().await.unwrap();
        let expected = if path.contains("cordoned") { "/node/gpu-15" } else { "gpu-13" };
        assert!(html.contains(expected) && html.contains("snapshot "), "{html}");
    }
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_from_outside_are_text_whatever_they_are() {
    let Some(browser) = Browser::start().await else { return };
    let names = [
        "<script>document.title='owned'</script>",
        "\"'><img src=x onerror=\"document.title='owned'\">",
        &"n".repeat(253),
        "\u{5d0}\u{5d1}\u{202e}gnp.exe",
    ];
    let mut dump = String::new();
    for (at, name) in names.iter().enumerate() {
        let amounts = json!({"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "8", format!("example.com/{name}"): "1"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": format!("n-{at}"), "labels": {"x": name}},
            "spec": {"taints": [{"key": name, "value": name, "effect": "NoSchedule"}]},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let appwrapper = json!({
            "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
            "metadata": {"name": name, "namespace": name, "uid": format!("w-{at}"), "labels": {"kueue.x-k8s.io/queue-name": name}},
            "spec": {"components": []}, "status": {"phase": "Suspended"},
        });
        writeln!(dump, "---\n{node}\n---\n{appwrapper}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.yaml");
    std::fs::write(&path, dump).unwrap();
    let (_aggregator, url) = process(&path, None);
    for width in [1280, 360] {
        browser.size(width, 900).await;
        browser.open(&url).await;
        browser.check_fits(width.into(), "a page of hostile names").await;
        let shown = browser
            .ask("return [...document.querySelectorAll('.nodes bdi, .waiting th a bdi')].map(e => e.textContent)")
            .await;
        for name in names {
            let spelled = name.replace('\u{202e}', "\\u{202e}");
            let times = shown.as_array().unwrap().iter().filter(|shown| **shown == json!(spelled)).count();
            assert_eq!(times, 2, "{spelled} in {shown:#}");
        }
        let owned = "return [document.title, document.scripts.length, document.images.length]";
        assert_eq!(browser.ask(owned).await, json!(["mcad-metrics", 1, 0]));
    }
    // Each leads to its own page.
    for name in names {
        let find = "const n = arguments[0]; [...document.querySelectorAll('.nodes th a')].find(a => a.textContent === n).click()";
        browser.open(&url).await;
        let spelled = name.replace('\u{202e}', "\\u{202e}");
        browser.driver.execute(find, vec![json!(spelled)]).await.unwrap();
        let title = browser.ask("return document.querySelector('h2 bdi').textContent").await;
        assert_eq!(title, json!(spelled));
        browser.check_fits(360, "the page of a node with a hostile name").await;
    }
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_nodes_are_chosen_and_paged() {
    let Some(browser) = Browser::start().await else { return };
    let node = |at: usize| {
        let amounts = json!({"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": "8"});
        let ready = if at.is_multiple_of(97) { "False" } else { "True" };
        object(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("gpu-{at:05}"), "uid": format!("n-{at}"), "labels": {"nvidia.com/gpu.product": format!("GPU-{}", at % 3)}},
            "spec": {"unschedulable": at.is_multiple_of(31)},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": ready}]},
        }))
    };
    let live = Live::start(Cluster::from_objects((0..10_000).map(node)), 0, Limits::default()).await;
    for width in [1280, 360] {
        browser.size(width, 900).await;
        browser.open(&live.url).await;
        browser.check_fits(width.into(), "10,000 nodes by pool").await;
        assert_eq!(browser.ask(ROWS).await, json!([3, 0]));
        let high = browser.ask("return document.getElementById('nodes').offsetHeight").await;
        assert!(high.as_u64().unwrap() < 1100, "the nodes of the first view are {high} pixels high");
        browser.open(&format!("{}/?show=all#nodes", live.url)).await;
        browser.check_fits(width.into(), "10,000 nodes").await;
        assert_eq!(browser.ask(ROWS).await, json!([3, 50]));
    }
    browser.check_text("104 of 10\u{202f}000 nodes have problems.").await;
    browser.ask("document.querySelector('.pages a[rel=next]').click()").await;
    browser.check_text("page 2 of 200").await;
    browser.type_in("input[name=search]", "gpu-09999").await;
    browser.until("document.getElementById('matches').innerText.startsWith('1 of 10\u{202f}000 nodes matches')").await;
    assert_eq!(browser.ask(ROWS).await, json!([1, 1]));
    browser.end().await;
    live.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_fails_appears_without_a_reload() {
    let Some(browser) = Browser::start().await else { return };
    let limits = Limits { beat: Duration::from_millis(200), ..Limits::default() };
    let live = Live::start(Cluster::from_objects(dumped("scene/cluster.yaml")), 3600, limits).await;
    let reports = scene_reports();
    let (first, second) = reports.split_at(reports.len() / 2);
    for report in first {
        live.send(report);
    }
    live.seconds.fetch_add(10, Ordering::SeqCst);
    for report in second {
        live.send(report);
    }
    live.seconds.fetch_add(10, Ordering::SeqCst);
    browser.open(&format!("{}/?search=gpu-11#nodes", live.url)).await;
    browser.check_text("70 work").await;
    browser.ask("window.loadedOnce = true; document.querySelector('input[name=search]').value = 'typing'").await;
    let mut broken = later(reports.iter().rfind(|report| report.node == "gpu-11").unwrap(), 3);
    broken.gpus.as_mut().unwrap().devices[0].unhealthy_reasons = vec!["xid_48".to_owned()];
    live.send(&broken);
    // Waiting is for a state of the page, never for a time.
    let appears = async {
        while !browser.text().await.contains("69 work") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), appears).await.unwrap();
    let kept = "return [window.loadedOnce, document.querySelector('input[name=search]').value, document.querySelector('.nodes .tag').innerText]";
    assert_eq!(browser.ask(kept).await, json!([true, "typing", "unhealthy"]));
    browser.end().await;
    live.end().await;
}

/// An hour of the scene in a few seconds: GPUs fail, a node is cordoned, work comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pictures_of_the_readme() {
    let Some(folder) = std::env::var_os("MCAD_SCREENSHOTS").map(PathBuf::from) else { return };
    let Some(browser) = Browser::start().await else { panic!("there is no browser") };
    let all = dumped("scene/cluster.yaml");
    let is_late = |object: &mcad_accounting::object::Object, names: &[&str]| match object {
        mcad_accounting::object::Object::Pod(pod) => names.contains(&&*pod.name),
        _ => false,
    };
    let late = ["detr-0", "eval-0", "serve-embed-0", "label-0"];
    let early = all.iter().filter(|object| !is_late(object, &late)).cloned();
    let limits = Limits { beat: Duration::from_millis(10), history_step: Duration::from_secs(15), ..Limits::default() };
    let live = Live::start(Cluster::from_objects(early), 0, limits).await;
    let reports = scene_reports();
    let second = &reports[reports.len() / 2..];
    for step in 0..241_u64 {
        live.seconds.store(step * 15, Ordering::SeqCst);
        let arriving = late.get((step as usize).wrapping_sub(40) / 45).filter(|_| step >= 40 && (step - 40) % 45 == 0);
        for object in all.iter().filter(|object| arriving.is_some_and(|name| is_late(object, &[name]))) {
            live.replica.hear(Told::Event(Event::Apply(object.clone())));
        }
        for (at, report) in second.iter().enumerate() {
            let mut report = later(report, step + 1);
            let wave =
                ((step as f64 / 17.0 + at as f64).sin() + (step as f64 / 5.0 + 2.0 * at as f64).sin() / 3.0) * 0.06;
            if let Some(machine) = &mut report.machine {
                machine.cpu_busy_ns = machine.cpu_busy_ns.map(|ns| ns / 102 * (100 + step));
            }
            for cgroup in report.cgroups.iter_mut().flat_map(|cgroups| &mut cgroups.cgroups) {
                cgroup.cpu_ns = cgroup.cpu_ns.map(|ns| ns / 102 * (100 + step));
            }
            for gpu in report.gpus.iter_mut().flat_map(|gpus| &mut gpus.devices) {
                if step < 150 {
                    gpu.unhealthy_reasons.clear();
                    gpu.utilization_ratio.get_or_insert(0.0);
                }
                gpu.utilization_ratio = gpu
                    .utilization_ratio
                    .map(|ratio| if ratio > 0.0 && step < 240 { (ratio + wave).clamp(0.0, 1.0) } else { ratio });
            }
            live.send(&report);
        }
        // A beat and a half: this is a camera, and no test.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    live.replica.refit();
    std::fs::create_dir_all(&folder).unwrap();
    browser.size(1280, 1180).await;
    for theme in ["light", "dark"] {
        browser.theme(theme).await;
        browser.open(&live.url).await;
        std::fs::write(folder.join(format!("page-{theme}.png")), browser.driver.screenshot_as_png().await.unwrap())
            .unwrap();
    }
    browser.end().await;
    live.end().await;
}
