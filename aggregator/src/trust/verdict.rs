//! From the answer to a TokenReview to the bearer of the token. Pure: (the answer, the token's claims, the time) to a
//! verdict.
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mcad_accounting::node_name::NodeName;

use super::claims::Claims;

/// The audience that agents' tokens are issued for. A token for the API server, which every pod has, is not accepted.
pub const AUDIENCE: &str = "mcad-metrics";

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The sender of a report: the agent of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// The node that the token was issued for (Kubernetes 1.30 and later).
    OnNode(NodeName),
    /// The pod that the token was issued for; the state of the cluster has its node.
    InPod(PodId),
}

/// A pod, identified with its UID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Why a sender is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// There is no token.
    #[error("no token: send `Authorization: Bearer TOKEN`; see mcad-agent --token")]
    NoToken,
    /// The text is not a token.
    #[error("the token is not a ServiceAccount token")]
    Garbage,
    /// It was issued for another audience.
    #[error("the token was not issued for the audience {AUDIENCE}")]
    Audience,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// The API server refuses it: it is forged, or its pod was deleted.
    #[error("the API server does not accept the token")]
    Rejected,
    /// It belongs to another ServiceAccount.
    #[error(
        "the token belongs to {0:?}, a ServiceAccount that is not accepted here; --agent-service-account names the agents' ServiceAccount"
    )]
    ServiceAccount(String),
    /// It is not bound to a pod.
    #[error("the token is not bound to a pod: use one that kubelet projects into the agent's pod")]
    Unbound,
    /// The pod of the token is not known, or not yet.
    #[error("the token's pod {0} is not known yet; send the next report as usual")]
    PodUnknown(String),
    /// It was issued for another node.
    #[error("the token is for node {token:?}, but the report is about node {report:?}")]
    OtherNode {
        /// The node that the token was issued for.
        token: String,
        /// The node that the report is about.
        report: String,
    },
    /// The API server does not answer.
    #[error("the API server cannot review the token at the moment")]
    Unavailable,
    /// Too many tokens are being reviewed.
    #[error("too many tokens are being reviewed at the moment")]
    Busy,
}

/// Label values for an enum's variants: a list of all values, and a function from variant to value, so that each value is written once.
macro_rules! reasons {
    ($words_are:vis $words:ident: { $($reason:pat => $word:literal,)+ } $(else $other:pat => $of_other:expr)*) => {
        /// All label values of this enum's own variants.
        $words_are const $words: &[&str] = &[$($word),+];

        /// The reason as a label value, also used in answers.
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

/// The bearer of a token, given the answer of the API server.
pub fn verdict(
    review: &TokenReviewStatus,
    claims: &Claims,
    service_account: &str,
    now_s: u64,
) -> Result<Bearer, Distrust> {
    if review.authenticated != Some(true) {
        // The API server's error texts are not stable. The claims are not verified, but only explain the refusal.
        return Err(if !claims.is_for(AUDIENCE) {
            Distrust::Audience
        } else if claims.exp.is_some_and(|exp_s| exp_s <= now_s) {
            Distrust::Expired
        } else {
            Distrust::Rejected
        });
    }
    // An API server that does not support audiences accepts any token and returns no audiences.
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
