//! From the API server's answer about a token to who its bearer is. Pure: (the answer, the token's own claims, the time) to
//! a verdict.
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mcad_accounting::node_name::NodeName;

use super::claims::Claims;

/// For whom agents' tokens are made out. A token for the API server, of which every pod has one, is not for us.
pub const AUDIENCE: &str = "mcad-metrics";

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Who sent a report: an agent, on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// The API server says which node the token was issued for (from Kubernetes 1.30 on).
    OnNode(NodeName),
    /// It says which pod; where that runs, the view of the cluster knows.
    InPod(PodId),
}

/// Which pod: one life of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Why a sender is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// There is no token.
    #[error("no token: send `Authorization: Bearer TOKEN`; see mcad-agent --token")]
    NoToken,
    /// It is no token.
    #[error("the token is not one of a ServiceAccount")]
    Garbage,
    /// It is made out for somebody else.
    #[error("the token is not made out for the audience {AUDIENCE}")]
    Audience,
    /// It is too old.
    #[error("the token has expired")]
    Expired,
    /// The API server does not know it: forged, or its pod is gone.
    #[error("the API server does not accept the token")]
    Rejected,
    /// It is somebody else's.
    #[error(
        "the token is that of {0:?}, a ServiceAccount that is not believed here; agents' is --agent-service-account"
    )]
    ServiceAccount(String),
    /// It is bound to no pod.
    #[error("the token is bound to no pod: an agent's is projected into its pod")]
    Unbound,
    /// The cluster does not have the pod, or not yet.
    #[error("the cluster is not known to have the token's pod {0}; the next report will do")]
    PodUnknown(String),
    /// It is another node's.
    #[error("the token is of node {token:?}, and the report of node {report:?}")]
    OtherNode {
        /// The node that the token was issued for.
        token: String,
        /// The node that the report is about.
        report: String,
    },
    /// The API server can't be asked.
    #[error("the API server can't be asked about the token at the moment")]
    Unavailable,
    /// Too many tokens are being asked about.
    #[error("too many tokens are being asked about at the moment")]
    Busy,
}

/// The words for an enum's variants: a list of them, and which one it is. Each word stands in one place, beside what it stands for.
macro_rules! reasons {
    ($words_are:vis $words:ident: { $($reason:pat => $word:literal,)+ } $(else $other:pat => $of_other:expr)*) => {
        /// The words that are its own.
        $words_are const $words: &[&str] = &[$($word),+];

        /// The reason in one word, as labels and answers spell it.
        pub fn reason(&self) -> &'static str {
            match self {
                $($reason => $word,)+
                $($other => $of_other,)*
            }
        }
    };
}
pub(crate) use reasons;

impl Distrust {
    reasons! { pub REASONS: {
        Self::NoToken => "no_token",
        Self::Garbage => "token_garbage",
        Self::Audience => "token_audience",
        Self::Expired => "token_expired",
        Self::Rejected => "token_rejected",
        Self::ServiceAccount(_) => "token_service_account",
        Self::Unbound => "token_unbound",
        Self::PodUnknown(_) => "token_pod_unknown",
        Self::OtherNode { .. } => "token_other_node",
        Self::Unavailable => "token_review_unavailable",
        Self::Busy => "token_review_busy",
    } }
}

/// Who bears a token that the API server was asked about.
pub fn verdict(
    review: &TokenReviewStatus,
    claims: &Claims,
    service_account: &str,
    now_s: u64,
) -> Result<Bearer, Distrust> {
    if review.authenticated != Some(true) {
        // The API server's own words are no contract. The claims may lie, but only about why they are not believed.
        return Err(if !claims.is_for(AUDIENCE) {
            Distrust::Audience
        } else if claims.exp.is_some_and(|exp_s| exp_s <= now_s) {
            Distrust::Expired
        } else {
            Distrust::Rejected
        });
    }
    // One that knows no audiences accepts any token, and says so by naming none.
    if !review.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Distrust::Audience);
    }
    let user = review.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if name != service_account {
        return Err(Distrust::ServiceAccount(name.chars().take(256).collect()));
    }
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| extra.get(key).and_then(|values| values.first()).filter(|value| !value.is_empty());
    if let Some(node) = one(NODE_NAME) {
        return NodeName::new(node).map(Bearer::OnNode).map_err(|_| Distrust::Unbound);
    }
    let namespace = name.split(':').nth(2).unwrap_or_default();
    let (Some(pod), Some(uid)) = (one(POD_NAME), one(POD_UID)) else { return Err(Distrust::Unbound) };
    Ok(Bearer::InPod(PodId { namespace: namespace.to_owned(), name: pod.clone(), uid: uid.clone() }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW_S: u64 = 1_800_000_000;
    const AGENT: &str = "system:serviceaccount:metrics:mcad-agent";

    fn claims(audience: &str, exp: u64) -> Claims {
        serde_json::from_value(json!({"aud": [audience], "exp": exp})).unwrap()
    }

    fn accepted(extra: &Value) -> Value {
        json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": AGENT, "extra": extra}})
    }

    #[track_caller]
    fn check(review: Value, claims: &Claims, expected: &Result<Bearer, &str>) {
        let review = serde_json::from_value(review).unwrap();
        let got = verdict(&review, claims, AGENT, NOW_S);
        assert_eq!(got.map_err(|distrust| distrust.reason()), *expected);
    }

    #[test]
    fn the_node_is_the_tokens_own_where_the_api_server_says_it() {
        let extra = json!({NODE_NAME: ["gpu-17"], POD_NAME: ["agent-x"], POD_UID: ["u"]});
        check(accepted(&extra), &claims(AUDIENCE, NOW_S + 1), &Ok(Bearer::OnNode(NodeName::new("gpu-17").unwrap())));
    }

    #[test]
    fn else_its_pod_is() {
        let pod = PodId { namespace: "metrics".into(), name: "agent-x".into(), uid: "u".into() };
        let extra = json!({POD_NAME: ["agent-x"], POD_UID: ["u"]});
        check(accepted(&extra), &claims(AUDIENCE, NOW_S + 1), &Ok(Bearer::InPod(pod)));
    }

    #[test]
    fn a_token_that_is_bound_to_no_pod_is_of_no_node() {
        for extra in [json!({}), json!({POD_NAME: ["x"]}), json!({POD_UID: ["u"]}), json!({POD_NAME: [], POD_UID: []})]
        {
            check(accepted(&extra), &claims(AUDIENCE, NOW_S + 1), &Err("token_unbound"));
        }
    }

    #[test]
    fn a_token_that_the_api_server_refuses_is_refused_for_what_it_says_of_itself() {
        let refused = json!({"authenticated": false, "error": "[invalid bearer token]"});
        check(refused.clone(), &claims("other", NOW_S + 1), &Err("token_audience"));
        check(refused.clone(), &claims(AUDIENCE, NOW_S), &Err("token_expired"));
        check(refused.clone(), &claims(AUDIENCE, NOW_S + 1), &Err("token_rejected"));
        check(json!({}), &claims(AUDIENCE, NOW_S + 1), &Err("token_rejected"));
    }

    #[test]
    fn what_a_token_says_of_itself_makes_nobody_believe_it() {
        let mut review = accepted(&json!({NODE_NAME: ["n"]}));
        review["authenticated"] = json!(false);
        check(review, &claims(AUDIENCE, NOW_S + 1), &Err("token_rejected"));
    }

    #[test]
    fn an_api_server_that_names_no_audience_of_ours_has_not_checked_it() {
        for audiences in [json!([]), json!(["https://kubernetes.default.svc"]), Value::Null] {
            let mut review = accepted(&json!({NODE_NAME: ["n"]}));
            review["audiences"] = audiences;
            check(review, &claims(AUDIENCE, NOW_S + 1), &Err("token_audience"));
        }
    }

    #[test]
    fn somebody_elses_token_is_refused() {
        for name in ["system:serviceaccount:metrics:other", "system:serviceaccount:other:mcad-agent", "mcad-agent", ""]
        {
            let mut review = accepted(&json!({NODE_NAME: ["n"]}));
            review["user"]["username"] = json!(name);
            check(review, &claims(AUDIENCE, NOW_S + 1), &Err("token_service_account"));
        }
    }
}
