//! What `fit` and `whatif` say: what is not known is neither a number nor a yes or no, and has its reason.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::collections::BTreeSet;

use mcad_accounting::cluster::{Cluster, Source};
use mcad_accounting::merge::Ages;
use mcad_accounting::object::Served;
use mcad_accounting::options::{Options, QueueMetrics};
use mcad_accounting::trial::Trial;
use mcad_accounting::unread::Unread;
use mcad_aggregator::known::Known;
use mcad_aggregator::receive;
use mcad_present::explain::drain::WhatIf;
use mcad_present::explain::notes;
use mcad_present::explain::submission::{self, Fit};
use mcad_present::explain::why::Places;
use mcad_present::tables::{self, View};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{gpu_node, gpu_report, gpus, gpus_of, object, pod, v1beta1, v1beta2, waiting, with};
use mcad_testkit::explained::NOW;
use mcad_testkit::queues::of_kueue;
use prost::Message as _;
use serde_json::{Value, json};

use crate::submissions::{object_of, queue, submission, template, without_queue};

const PLAIN: View = View { width: None, paint: Paint::Plain };

fn known(objects: &[Value], queue_metrics: QueueMetrics) -> Known {
    let options = Options { queue_metrics, ..Options::default() };
    Known::new(Cluster::from_objects(objects.iter().map(object)), options, Ages::DoNot)
}

/// The answer to `fit`, if these lists have objects that could not be decoded.
fn fit_on(known: &Known, documents: &[Value], copies: u32, undecodable: &[Source]) -> Fit {
    let submissions: Vec<_> = documents.iter().map(submission).collect();
    let appwrappers: Vec<_> = submissions.iter().map(|one| &one.appwrapper).collect();
    let ground = known.ground(&appwrappers, &undecodable.iter().copied().collect(), NOW);
    let (mut trial, mut places) = (Trial::new(&ground), Places::new(&ground.snapshot));
    let try_one = |(at, one)| submission::Submission::new(one, &trial.submit(one, copies), (at, None), &mut places);
    let submissions: Vec<_> = (1..).zip(&submissions).map(try_one).collect();
    let versions: Vec<_> = appwrappers.iter().map(|appwrapper| appwrapper.version).collect();
    let notes = notes::unread(&ground.unread, &versions).into_iter().chain(notes::fake(&ground.snapshot)).collect();
    Fit::new(&ground.snapshot, submissions, notes, NOW)
}

pub(crate) fn fit(objects: &[Value], documents: &[Value], copies: u32) -> Fit {
    fit_on(&known(objects, QueueMetrics::On), documents, copies, &[])
}

pub(crate) fn whatif(objects: &[Value], node: &str, undecodable: &[Source]) -> WhatIf {
    let nodes = [node.to_owned()];
    let (held, snapshot) = known(objects, QueueMetrics::On).drain(&nodes, NOW).unwrap();
    let unread = Unread::of(&snapshot, &undecodable.iter().copied().collect());
    WhatIf::new(&snapshot, &nodes, &held, &unread, NOW)
}

fn job(gpus: u32) -> Value {
    without_queue(object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(gpus)})))
}

fn line(text: &str) -> &str {
    text.lines().next().unwrap()
}

#[test]
fn where_objects_could_not_be_read_it_cannot_be_told_what_fits() {
    let known = known(&[gpu_node("n", 8)], QueueMetrics::On);
    let v1 = Source::AppWrappers(Served::McadV1Beta1);
    let v2 = Source::AppWrappers(Served::WorkloadV1Beta2);
    for source in Source::DEVICES.into_iter().chain(Source::QUEUES).chain([Source::Nodes, Source::Pods]) {
        for gpus in [1, 9] {
            let fit = fit_on(&known, &[job(gpus)], 1, &[source]);
            assert_eq!((fit.fits, fit.submissions[0].fits, fit.submissions[0].copies_fit), (None, None, None));
            let said = format!("Some objects could not be read, so it cannot be told what fits. They are {source}.");
            assert_eq!(&*fit.notes, std::slice::from_ref(&said));
            let text = tables::fit::fit(&fit, PLAIN);
            assert_eq!(line(&text), "Whether Job a/w fits now cannot be told.");
            assert!(text.contains(&said), "{text}");
            assert_eq!(serde_json::to_value(&fit).unwrap().get("fits"), None);
        }
    }
    // What other AppWrappers are matters only to MCAD's sum.
    assert_eq!(fit_on(&known, &[job(1)], 1, &[v1, v2]).fits, Some(true));
    let item = json!([{"generictemplate": {"spec": {"replicas": 1, "template": {"spec": gpus_of(1)}}}}]);
    let old = v1beta1("w", item, json!({}));
    assert_eq!(fit_on(&known, std::slice::from_ref(&old), 1, &[v2]).fits, Some(true));
    let both = fit_on(&known, &[job(1), old], 1, &[v1]);
    assert_eq!(both.submissions.iter().map(|one| one.fits).collect::<Vec<_>>(), [Some(true), None]);
    assert!(both.fits.is_none() && both.notes.len() == 1, "{both:?}");
    let text = tables::fit::fit(&both, PLAIN);
    assert!(
        text.contains(
            "\n1 of 2 objects in the file fits now, one after the other; whether 1 more does is not known.\n"
        )
    );
}

#[test]
fn the_same_holds_for_what_a_drained_node_takes() {
    let labels = json!({"workload.codeflare.dev/appwrapper": "w"});
    let of_w = with(pod("p", "l", json!({"nvidia.com/gpu": "1"})), "/metadata/labels", labels);
    let sets = json!([{"podSets": [{"path": "template.t"}], "template": {"t": {"spec": gpus_of(1)}}}]);
    let objects = [gpu_node("l", 8), gpu_node("m", 8), v1beta2("w", sets, "Running"), of_w];
    assert_eq!(whatif(&objects, "l", &[]).fits, Some(true));
    let unread = whatif(&objects, "l", &[Source::Nodes]);
    assert_eq!((unread.fits, unread.appwrappers[0].fits), (None, None));
    let text = tables::drain::drain(&unread, PLAIN);
    assert!(line(&text).ends_with("whether the other nodes have places for it cannot be told."), "{text}");
    assert!(text.contains("Some objects could not be read, so it cannot be told what fits. They are nodes."), "{text}");
    // Nobody loses a pod.
    assert_eq!(whatif(&objects, "m", &[Source::Nodes]).notes, [""; 0]);
}

#[test]
fn objects_that_exceed_a_limit_are_not_read_either() {
    let many: Vec<_> = (0..5_000).map(|at| json!({"key": format!("k{at}"), "effect": "NoSchedule"})).collect();
    let objects = [gpu_node("n", 8), with(gpu_node("m", 8), "/spec/taints", json!(many))];
    let fit = fit(&objects, &[job(1)], 1);
    assert_eq!(fit.fits, None);
    assert!(fit.notes[0].ends_with("They are nodes."), "{fit:?}");
}

#[test]
fn queues_that_are_not_read_are_not_known() {
    let objects = [vec![gpu_node("n", 8)], queue(1, json!({}))].concat();
    let named = object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(2)}));
    for (metrics, fits) in [(QueueMetrics::On, Some(false)), (QueueMetrics::Off, None)] {
        let known = known(&objects, metrics);
        // That the API server serves them, or not, is known in either case.
        assert_eq!(fit_on(&known, std::slice::from_ref(&named), 1, &[]).fits, fits);
        known.serve_queues(Some(BTreeSet::new()));
        let expected = (metrics == QueueMetrics::On).then_some(true);
        assert_eq!(fit_on(&known, std::slice::from_ref(&named), 1, &[]).fits, expected);
    }
}

#[test]
fn how_many_copies_fit_is_a_number_only_where_it_is_known() {
    let title = |objects: &[Value], documents: &[Value], copies| {
        let fit = fit(objects, documents, copies);
        let last = fit.submissions.last().unwrap();
        let number = (last.copies_fit, last.copies_fit_at_least);
        (
            tables::fit::fit(&Fit { submissions: vec![last.clone()], ..fit }, PLAIN).lines().next().unwrap().to_owned(),
            number,
        )
    };
    let nodes = [gpu_node("n", 8)];
    assert_eq!(title(&nodes, &[job(4)], 3), ("2 of 3 copies of Job a/w fit now.".into(), (Some(2), None)));
    assert_eq!(title(&nodes, &[job(5)], 3), ("1 of 3 copies of Job a/w fits now.".into(), (Some(1), None)));
    // An earlier one need not place all of its pods.
    let some = with(waiting(&[(2, gpus_of(4))]), "/spec/schedulingSpec", json!({"minAvailable": 1}));
    let unsure = "Whether 3 copies of Job a/w fit now cannot be told.".to_owned();
    assert_eq!(title(&nodes, &[some.clone(), job(4)], 3), (unsure, (None, None)));
    // All pods of its three copies leave four GPUs.
    let nodes = [gpu_node("n", 8), gpu_node("o", 20)];
    let least = "Whether 3 copies of Job a/w fit now cannot be told; at least 1 does.".to_owned();
    assert_eq!(title(&nodes, &[some, job(4)], 3), (least, (None, Some(1))));
    // Whether there is a queue.
    let named = object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(1)}));
    let unsure = "Whether 3 copies of Job a/w fit now cannot be told.".to_owned();
    assert_eq!(title(&nodes, &[named], 3), (unsure, (None, None)));
}

#[test]
fn simulated_gpus_are_told_of() {
    let mut report = gpu_report("n", gpus(8));
    report.gpus.as_mut().unwrap().fake = true;
    let known = known(&[gpu_node("n", 8), gpu_node("m", 8)], QueueMetrics::On);
    known.replay(&receive::check(&report.encode_to_vec()).unwrap(), NOW).unwrap();
    let fit = fit_on(&known, &[job(1)], 1, &[]);
    assert_eq!((fit.fits, &*fit.notes), (Some(true), &["FAKE: the GPUs of n are simulated.".to_owned()][..]));
}

#[test]
fn what_has_unknown_pods_is_named_as_its_version_declares_them() {
    let items = json!([
        {"generictemplate": {"spec": {"replicas": 1, "template": {"spec": gpus_of(1)}}}},
        {"generictemplate": {"apiVersion": "example.com/v1", "kind": "Train", "spec": {}}},
    ]);
    let fit = fit(&[gpu_node("n", 8)], &[v1beta1("w", items, json!({}))], 1);
    assert_eq!(
        fit.submissions[0].nodes.why,
        "places for its pod: 1 on n; further pods may be in Train without custompodresources"
    );
}

#[test]
fn workloads_are_counted_in_whole_sentences() {
    let cluster = |quota| [vec![gpu_node("n", 8)], queue(quota, json!({}))].concat();
    let job = object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(1)}));
    let why = |quota, copies| {
        fit(&cluster(quota), std::slice::from_ref(&job), copies).submissions[0].quota.as_ref().unwrap().why.clone()
    };
    let next = "the next one: needs 1 GPU more of flavor f than ClusterQueue q has left";
    assert_eq!(
        why(1, 2),
        format!("ClusterQueue q has enough for 1 of 2 Workloads, which takes 1 GPU of flavor f; {next}")
    );
    assert_eq!(
        why(2, 3),
        format!("ClusterQueue q has enough for 2 of 3 Workloads, which take 2 GPUs of flavor f; {next}")
    );
    assert_eq!(why(2, 2), "ClusterQueue q has enough: it takes 2 GPUs of flavor f");
}

#[test]
fn an_amount_without_a_limit_is_no_number() {
    let lender = json!({"cohortName": "co", "resourceGroups": [{
        "coveredResources": ["nvidia.com/gpu"],
        "flavors": [{"name": "f", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 8}]}],
    }]});
    let queues = [queue(1, json!({"cohortName": "co"})), vec![of_kueue("ClusterQueue", "lender", lender)]].concat();
    let job = object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(3)}));
    let fit = fit(&[vec![gpu_node("n", 8)], queues].concat(), &[job], 1);
    let taken = json!([{"flavor": "f", "resource": "nvidia.com/gpu", "amount": 3, "borrowed": 2}]);
    assert_eq!(serde_json::to_value(&fit.submissions[0].quota).unwrap()["taken"], taken);
}
