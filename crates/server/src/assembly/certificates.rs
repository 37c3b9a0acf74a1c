//! The certificates of all listeners: read at the start, on SIGHUP, and when their files change.

use std::sync::Arc;
use std::time::Duration;

use net::{ClientIssuers, Tls, TlsError, TlsFiles};
use tracing::{error, info};

use super::StartError;
use crate::config::{ClientAuth, Config, MqttListener};

/// How often files are looked at: a renewed certificate is used after this at the latest.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// By the number of the listener in the settings.
#[derive(Clone)]
pub(super) struct Certificates(Vec<Option<Arc<Tls>>>);

impl Certificates {
    /// Reads all files. What cannot be used keeps the broker from starting.
    pub(super) fn load(config: &Config) -> Result<Self, StartError> {
        let load = |listener: &MqttListener| {
            let Some(files) = files(listener) else { return Ok(None) };
            Tls::load(files).map(|tls| Some(Arc::new(tls))).map_err(|source| StartError::Certificates {
                listener: listener.own.name.as_str().to_owned(),
                source,
            })
        };
        config.mqtt_listeners.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// Those of a listener, if it has some.
    pub(super) fn of(&self, number: usize) -> Option<Arc<Tls>> {
        self.0.get(number).cloned().flatten()
    }

    /// Reads all files again. Where that fails, what was read before stays in use.
    pub(super) fn reload(&self) {
        self.each(|tls| tls.reload().map(|()| true));
    }

    /// Looks every minute whether a file has changed, for ever. Without certificates there is nothing to look at, and no
    /// timer.
    pub(super) async fn watch(&self) {
        if self.0.iter().flatten().next().is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.each(Tls::reload_if_changed);
        }
    }

    fn each(&self, reload: impl Fn(&Tls) -> Result<bool, TlsError>) {
        for tls in self.0.iter().flatten() {
            let file = tls.certificate_file().display();
            match reload(tls) {
                Ok(true) => info!(%file, "certificates read again"),
                Ok(false) => {}
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    error!(%file, err = %error, cause, "certificates not renewed; the old ones stay in use");
                }
            }
        }
    }
}

fn files(listener: &MqttListener) -> Option<TlsFiles> {
    let tls = &listener.tls;
    if !listener.is_secure() {
        return None;
    }
    let issuers =
        tls.ca_file.clone().map(|authorities| ClientIssuers { authorities, revoked: tls.crl_file.clone() });
    let client = match (tls.client_auth, issuers) {
        // Without authorities the settings were refused.
        (ClientAuth::None, _) | (_, None) => net::ClientAuth::None,
        (ClientAuth::Optional, Some(issuers)) => net::ClientAuth::Optional(issuers),
        (ClientAuth::Required, Some(issuers)) => net::ClientAuth::Required(issuers),
    };
    Some(TlsFiles { certificate: tls.certificate_file.clone()?, key: tls.key_file.clone()?, client })
}
