//! What is printed, and what may be printed into a script.

use super::*;
use tieline_core::host::firewall::Interface;
use tieline_core::host::print;

#[test]
fn only_interface_names_that_can_be_quoted_enter_a_script() {
    for bad in [
        "",
        "eth0\" ; drop",
        "a*",
        "a\\b",
        "much-too-long-name",
        "eth 0",
        "ethé",
    ] {
        assert!(Interface::new(bad).is_err(), "{bad:?}");
    }
    for good in ["eth0", "enp3s0f1np1", "br-12ab", "wlan0.12", "veth_a@b"] {
        assert_eq!(Interface::new(good).unwrap().to_string(), good);
    }
}

#[test]
fn a_hosts_state_prints_like_the_tools_that_show_it() {
    let world = two_by_two();
    let host = host(&world, "berlin0-2");
    let text = print::everything(&host);
    for line in [
        "interface: tiei0",
        "  allowed ips: 10.64.0.0/10, 100.127.0.0/16, 172.16.10.0/24, 172.20.0.0/16, 192.168.11.0/24",
        "  persistent keepalive: every 25 seconds",
        "    inet 100.127.0.3/32 scope link tiei0",
        "10.64.0.0/10 proto 84 src 100.127.0.3 metric 100 mtu 1420",
        "\tnexthop dev tiei1 weight 1",
        "unreachable 10.64.0.0/10 proto 84 metric 4000",
        "net.ipv4.ip_forward = 1",
        "table inet tieline {",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let json = serde_json::to_string(&host).unwrap();
    assert_eq!(serde_json::from_str::<HostState>(&json).unwrap(), host);
}
