//! A connection to the API server that a program can keep for months.
//!
//! [`kube::Client`] leaves a dead connection open: a watch waits on it for minutes, and requests take it from the pool again and
//! again. That happens when the own node's address changes, when a NAT or a load balancer on the way forgets the connection, and when
//! the API server's machine loses power: no packet says so. Here the kernel asks (TCP keep-alive, RFC 9293 section 3.8.4) and gives up on
//! what is not acknowledged (TCP user timeout, RFC 5482).

use crate::config::CredentialError;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::client::retry::RetryPolicy;
use kube::{Client, Config};
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// How long a connection may be silent before the kernel asks whether the other side is still there.
const SILENCE: Duration = Duration::from_secs(5);
/// How long what was sent, questions included, may stay without acknowledgement until the connection is closed.
const UNANSWERED: Duration = Duration::from_secs(15);

/// As `Client::try_from`, with connections that end soon after their other side has become unreachable.
///
/// # Errors
/// [`CredentialError::Unusable`]: the configuration names certificates or a credential that cannot be used, or a proxy.
pub fn connect(config: Config) -> Result<Client, CredentialError> {
    client(config).map_err(|error| CredentialError::Unusable(Box::new(error)))
}

fn client(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // Built without proxies: kube says so.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(SILENCE));
    tcp.set_keepalive_interval(Some(SILENCE));
    tcp.set_tcp_user_timeout(Some(UNANSWERED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let retry = config
        .default_retry
        .then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}
