#![allow(clippy::unwrap_used)]
use super::*;
use crate::ids::NodeName;

fn node(cluster: &str, name: &str) -> About {
    About::Node(NodeId {
        cluster: ClusterName::new(cluster).unwrap(),
        node: NodeName::new(name).unwrap(),
    })
}

fn notice(about: About, link: &str, reason: Reason) -> Notice {
    Notice {
        about,
        link: Some(LinkName::new(link).unwrap()),
        reason,
        message: "the disk was cloned".to_owned(),
    }
}

#[test]
fn kinds_and_reasons_are_in_order_of_their_words_and_read_back() {
    assert!(Kind::ALL.is_sorted_by_key(|kind| kind.as_str()));
    assert!(Kind::ALL.is_sorted());
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert!(Reason::ALL.is_sorted_by_key(|reason| reason.as_str()));
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
    }
    assert_eq!(Reason::parse("nosite"), None);
}

#[test]
fn a_reason_says_what_it_means_in_one_sentence() {
    for reason in Reason::ALL {
        let meaning = reason.meaning();
        assert!(meaning.ends_with('.'), "{reason}: {meaning}");
        assert!(!meaning.starts_with(' '), "{reason}: {meaning}");
        assert_eq!(meaning.matches(". ").count(), 0, "{reason}: {meaning}");
    }
}

#[test]
fn a_notice_reads_kind_name_reason_and_what_to_do() {
    let it = notice(node("eu", "a"), "acme", Reason::DuplicateKey);
    assert_eq!(it.to_string(), "Node a: DuplicateKey: the disk was cloned");
    assert_eq!(it.brief(), "Node a: the disk was cloned");
}

#[test]
fn notices_are_sorted_as_they_read_and_nodes_of_one_name_stay_two() {
    let unread = About::Unread(Kind::Cluster, "Z".to_owned());
    let mut all = vec![
        notice(node("us", "a"), "beta", Reason::NoSite),
        notice(node("us", "a"), "acme", Reason::NoSite),
        notice(node("eu", "b"), "acme", Reason::NoSite),
        notice(node("eu", "a"), "acme", Reason::NoSite),
        notice(node("us", "a"), "acme", Reason::NoPodCidr),
        notice(unread, "acme", Reason::Invalid),
    ];
    all.sort();
    let read = |it: &Notice| {
        let link = it.link.as_ref().map(ToString::to_string);
        (it.about.to_string(), link, it.reason.to_string())
    };
    let texts: Vec<_> = all.iter().map(read).collect();
    assert!(texts.is_sorted(), "{texts:#?}");
    assert_eq!(all[2].about, node("eu", "a"));
    assert_eq!(all[3].about, node("us", "a"));
    all.dedup();
    assert_eq!(all.len(), 6);
}
