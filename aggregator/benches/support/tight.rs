//! Small clusters on which an AppWrapper just fits or just does not fit.
use mcad_accounting::cluster::Cluster;
use mcad_accounting::fit::fits;
use mcad_accounting::now::Now;
use mcad_accounting::object::{Kind, Object, decode};
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Outcome;
use mcad_accounting::views::without_reports;
use serde_json::{Value, json};

const CLUSTERS: u64 = 1_000;

/// xorshift64*: the same clusters on every machine.
struct Random(u64);

impl Random {
    /// One of `from..=to`.
    fn of(&mut self, from: u64, to: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        from + (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % (to - from + 1)
    }
}

/// GPUs, cores, GiB.
type Amounts = [u64; 3];

/// Prints the number of clusters by verdict.
pub(crate) fn cut_short() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let outcomes: Vec<Outcome> = (0..CLUSTERS).map(|_| outcome(&mut random)).collect();
    let count = |of| outcomes.iter().filter(|outcome| **outcome == of).count();
    let [fit, never, unproven] = [Outcome::Fits, Outcome::Never, Outcome::Unproven].map(count);
    println!("  {CLUSTERS} tight random clusters: {fit} fit, {never} do not, {unproven} cut short");
}

/// Nodes are filled with pods of a few kinds until no more fits; the AppWrapper requests these pods. In half of the clusters there is
/// then one more pod, or less room on one node.
fn outcome(random: &mut Random) -> Outcome {
    let nodes = random.of(3, 20) as usize;
    let mut room: Vec<Amounts> = (0..nodes).map(|_| [random.of(1, 8), random.of(8, 64), random.of(16, 512)]).collect();
    let kinds: Vec<Amounts> =
        (0..random.of(2, 5)).map(|_| [random.of(0, 4), random.of(1, 16), random.of(4, 128)]).collect();
    let mut counts = vec![0_u64; kinds.len()];
    for node in &room {
        let mut left = *node;
        // After this many failed attempts, the node counts as full.
        let mut tries = 8;
        while tries > 0 {
            let kind = random.of(0, kinds.len() as u64 - 1) as usize;
            if (0..3).all(|of| kinds[kind][of] <= left[of]) {
                (0..3).for_each(|of| left[of] -= kinds[kind][of]);
                counts[kind] += 1;
            } else {
                tries -= 1;
            }
        }
    }
    match random.of(0, 3) {
        0 => counts[random.of(0, kinds.len() as u64 - 1) as usize] += 1,
        1 => {
            let node = &mut room[random.of(0, nodes as u64 - 1) as usize];
            node[0] = node[0].saturating_sub(1);
            node[1] = node[1].saturating_sub(2);
        }
        _ => {}
    }
    decide(&room, &kinds, &counts)
}

fn decide(room: &[Amounts], kinds: &[Amounts], counts: &[u64]) -> Outcome {
    let quantities = |[gpus, cores, gib]: Amounts| json!({"nvidia.com/gpu": gpus.to_string(), "cpu": cores.to_string(), "memory": format!("{gib}Gi"), "pods": "110"});
    let node = |(at, room): (usize, &Amounts)| {
        let status = json!({"allocatable": quantities(*room), "capacity": quantities(*room), "conditions": [{"type": "Ready", "status": "True"}]});
        object(Kind::Node, json!({"metadata": {"name": format!("n{at:02}")}, "status": status}))
    };
    let component = |(kind, count): (&Amounts, &u64)| {
        let mut requests = quantities(*kind);
        requests.as_object_mut().unwrap().remove("pods");
        let template = json!({"t": {"spec": {"containers": [{"resources": {"requests": requests}}]}}});
        json!({"podSets": [{"path": "template.t", "replicas": count}], "template": template})
    };
    let components: Vec<Value> = kinds.iter().zip(counts).map(component).collect();
    let waiting = json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "metadata": {"name": "w", "namespace": "a"},
        "spec": {"components": components}, "status": {"phase": "Suspended"},
    });
    let objects = room.iter().enumerate().map(node).chain([object(Kind::AppWrapper, waiting)]);
    let (cluster, options) = (Cluster::from_objects(objects), Options::default());
    let views = without_reports(&cluster, &options);
    let snapshot = Snapshot::new(&cluster, views, Now::default(), 0, &options);
    fits(&snapshot).into_values().next().unwrap().outcome
}

fn object(kind: Kind, json: Value) -> Object {
    decode(kind, json).unwrap()
}
