//! VPN attachments: keys, sealed boxes and the other side's configuration.

use crate::Tests;
use crate::claims::all_agents;
use crate::stage::{NODES, Stage, key, sealing_pair, unbase64};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use tieline_crds::sealed::AttachmentSecret;

pub(crate) fn tests() -> Tests {
    vec![
        (
            "vpn: the gateway gets the attachment's keys sealed, and the other side a ready configuration",
            delivered,
        ),
        (
            "vpn: without its pre-shared key the attachment waits and says what to create",
            waits,
        ),
    ]
}

fn secret_value(secret: &Value, name: &str) -> Result<String> {
    let text = secret["data"][name]
        .as_str()
        .with_context(|| format!("the Secret has no {name}"))?;
    Ok(String::from_utf8(unbase64(text)?)?)
}

fn delivered() -> Result<()> {
    let mut stage = Stage::three_sites()?;
    all_agents(&stage)?;
    stage.eventually_condition("vpnattachments.tieline.dev", "hq", "Ready", "True/")?;
    let plan = stage.get("networkplans.tieline.dev", "acme")?;
    let segments = plan["spec"]["segments"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let paris = segments
        .iter()
        .find(|it| it["site"] == "paris")
        .context("no segment in paris")?;
    let gateway = paris["gateways"][0]["peer"]
        .as_str()
        .context("no gateway in paris")?
        .to_owned();

    // Only the gateway's own sealing key opens the box.
    let peer = stage.get("peers.tieline.dev", &gateway)?;
    let sealed = &peer["spec"]["sealedSecrets"][0];
    let seed = 1 + NODES
        .iter()
        .position(|(node, _)| gateway.ends_with(node))
        .context("an unknown gateway")?;
    let (secret, public) = sealing_pair(u8::try_from(seed)?);
    ensure!(
        sealed["name"] == "hq" && sealed["recipientKey"] == public,
        "{sealed:#}"
    );
    let ciphertext = unbase64(sealed["ciphertext"].as_str().context("no ciphertext")?)?;
    let opened = secret
        .unseal(&ciphertext)
        .ok()
        .context("the gateway cannot open the box")?;
    let opened = AttachmentSecret::from_json(&opened).context("what was sealed")?;
    ensure!(
        opened.preshared_key.as_deref() == Some(&key(200)),
        "the pre-shared key is not the Secret's"
    );
    let held = stage.get("secrets", "tieline-vpn-hq")?;
    ensure!(
        opened.private_key == secret_value(&held, "privateKey")?,
        "the private key is not the Secret's"
    );
    for other in stage.list("peers.tieline.dev")? {
        ensure!(
            other["metadata"]["name"] == gateway.as_str()
                || other["spec"]["sealedSecrets"].is_null(),
            "{:#}",
            other["spec"]
        );
    }

    let status = stage.get("vpnattachments.tieline.dev", "hq")?["status"].clone();
    let config = stage.get("secrets", "tieline-vpn-hq-config")?;
    let text = secret_value(&config, "wg0.conf")?;
    let public = status["publicKey"]
        .as_str()
        .context("no public key in status")?;
    for line in [
        format!("PublicKey = {public}"),
        format!("PresharedKey = {}", key(200)),
        "PersistentKeepalive = 25".to_owned(),
        "AllowedIPs = 10.64.0.0/16, 10.96.0.0/16".to_owned(),
        format!(
            "Endpoint = {}",
            status["localEndpoints"][0].as_str().unwrap_or_default()
        ),
    ] {
        ensure!(
            text.lines().any(|it| it == line),
            "no line {line:?} in\n{text}"
        );
    }
    ensure!(
        status["localEndpoints"][0]
            .as_str()
            .is_some_and(|it| it.ends_with(":21884")),
        "{status:#}"
    );
    ensure!(
        !status.to_string().contains(&opened.private_key)
            && !status.to_string().contains(&key(200)),
        "a secret in a status"
    );

    // The active gateway says how the session is doing.
    let node = gateway.trim_start_matches("shop.");
    for (up, ready) in [(0, "False/NoSession"), (1, "True/")] {
        let reported = json!({"name": "hq", "up": up, "total": 1});
        stage.patch_peer_status(node, &json!({"status": {"sessions": [reported]}}))?;
        stage.eventually_condition("vpnattachments.tieline.dev", "hq", "Ready", ready)?;
        let status = stage.get("vpnattachments.tieline.dev", "hq")?["status"].clone();
        ensure!(
            status["sessions"] == json!({"up": up, "total": 1}),
            "{status:#}"
        );
    }

    // A new operator finds keys and boxes good.
    stage.settled()?;
    let mark = stage.audit_mark();
    let second = stage.hand_over(&[])?;
    stage.quiet_since(mark, Duration::from_secs(3))?;
    for log in [stage.log(0)?, stage.log(second)?] {
        ensure!(
            !log.contains(&opened.private_key) && !log.contains(&key(200)),
            "a key in a log"
        );
    }
    Ok(())
}

fn waits() -> Result<()> {
    let stage = Stage::three_sites()?;
    stage.kubectl(&["delete", "secret", "hq-psk", "-n", "tieline-system"])?;
    stage.eventually_condition(
        "vpnattachments.tieline.dev",
        "hq",
        "Ready",
        "False/PresharedKeyMissing: Secret hq-psk does not exist",
    )?;
    stage.eventually_condition("vpnattachments.tieline.dev", "hq", "Ready", "wg genpsk")?;
    stage.preshared_key("hq-psk")?;
    stage.eventually_condition(
        "vpnattachments.tieline.dev",
        "hq",
        "Ready",
        "False/KeyNotDelivered",
    )
}
