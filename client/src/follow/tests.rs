#![allow(clippy::unwrap_used)]
use super::*;
use crate::fake::{NAMESPACE, Script, kind, serve};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Tells what it is told.
struct Witness {
    said: UnboundedSender<String>,
    deletion: Deletion,
}

impl Witness {
    fn say(&self, text: String) {
        self.said.send(text).unwrap();
    }
}

impl Follower<ConfigMap> for Witness {
    type Item = String;

    fn begin(&mut self) {
        self.say("begin".to_owned());
    }

    fn read(&mut self, object: ConfigMap) -> String {
        object.name_any()
    }

    fn reset(&mut self, list: Vec<String>) {
        self.say(format!("reset {}", list.join(" ")));
    }

    fn apply(&mut self, item: String) {
        self.say(format!("apply {item}"));
    }

    fn delete(&mut self, object: &ConfigMap) -> Deletion {
        self.say(format!("delete {}", object.name_any()));
        self.deletion
    }

    fn broken(&mut self, error: &Error) -> Duration {
        self.say(match error {
            Error::InitialListFailed(_) => "no list".to_owned(),
            error => error.to_string(),
        });
        Duration::ZERO
    }
}

/// The first things that a follower is told by an API server that answers like this. A pause would outlast the test, unless it is `short`.
async fn told<const N: usize>(script: Script, deletion: Deletion, short: bool) -> [String; N] {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let client = serve(kind(&path, script)).await;
    let first = Duration::from_millis(if short { 2 } else { 600_000 });
    let longest = first;
    let (said, mut hear) = unbounded_channel();
    let task = tokio::spawn(follow(
        Api::<ConfigMap>::namespaced(client, NAMESPACE),
        Config::default(),
        Pauses { first, longest },
        Witness { said, deletion },
    ));
    let mut heard = Vec::new();
    while heard.len() < N {
        let next = tokio::time::timeout(Duration::from_secs(10), hear.recv()).await;
        heard.push(next.unwrap_or_else(|_| panic!("only {heard:?}")).unwrap());
    }
    task.abort();
    heard.try_into().unwrap()
}

#[tokio::test]
async fn what_changes_after_a_list_is_told_one_by_one() {
    let script = Script {
        lists: [Ok(vec!["a", "b"])].into(),
        watches: [vec![("DELETED", "a"), ("ADDED", "c"), ("MODIFIED", "b")]].into(),
    };
    assert_eq!(
        told(script, Deletion::Believed, false).await,
        ["begin", "reset a b", "delete a", "apply c", "apply b"]
    );
}

#[tokio::test]
async fn a_deletion_that_proves_nothing_is_followed_by_a_list_without_a_pause() {
    let script = Script {
        lists: [Ok(vec!["a", "b"]), Ok(vec!["b"])].into(),
        watches: [vec![("DELETED", "a"), ("ADDED", "c")]].into(),
    };
    assert_eq!(
        told(script, Deletion::ListAgain, false).await,
        ["begin", "reset a b", "delete a", "begin", "reset b"]
    );
}

#[tokio::test]
async fn a_refused_list_is_told_and_asked_for_again() {
    let script = Script {
        lists: [Err(403), Err(403), Ok(vec!["a"])].into(),
        ..Script::default()
    };
    assert_eq!(
        told(script, Deletion::Believed, true).await,
        ["begin", "no list", "begin", "no list", "begin", "reset a"]
    );
}

#[tokio::test]
async fn a_watch_that_broke_is_not_resumed_but_begins_with_a_list() {
    let script = Script {
        lists: [Ok(vec!["a"]), Ok(vec!["b"])].into(),
        watches: [vec![("ADDED", "c"), ("ERROR", "gone")]].into(),
    };
    let [rest @ .., broken, begin, reset] = told::<6>(script, Deletion::Believed, true).await;
    assert_eq!(rest, ["begin", "reset a", "apply c"]);
    assert!(!broken.is_empty());
    assert_eq!([begin.as_str(), reset.as_str()], ["begin", "reset b"]);
}

#[test]
fn a_pause_is_shortened_by_a_half_at_most() {
    let whole = Duration::from_secs(2);
    for _ in 0..100 {
        let pause = jittered(whole);
        assert!((whole / 2..=whole).contains(&pause), "{pause:?}");
    }
}
