//! [`Tls`]: certificates and keys of a listener, read from files and read again without a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use thiserror::Error;

/// Where a listener's certificates are. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the listener, then those between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whether clients show certificates, and who may have issued them.
    pub client: ClientAuth,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// One that is shown has to be valid; who shows none gets in as well.
    Optional(ClientIssuers),
    /// Who shows none that is valid is refused in the handshake.
    Required(ClientIssuers),
}

/// Whose client certificates are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIssuers {
    /// Certificates of the authorities.
    pub authorities: PathBuf,
    /// Certificates that the authorities have taken back. With it, an authority that has no list in it is refused.
    pub revoked: Option<PathBuf>,
}

/// Why certificates cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no usable {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it, if it is not merely empty.
        #[source]
        source: Option<pem::Error>,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("{} and its key cannot be used", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authorities cannot be used.
    #[error("{} cannot be used for client certificates", path.display())]
    Authorities {
        /// The file of the authorities.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
}

/// The certificates of a listener as they are now. All cores share it; what a handshake began with it keeps.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// When each file was last changed, as of the last attempt to read them.
    stamps: ArcSwap<Vec<Option<SystemTime>>>,
}

impl Tls {
    /// Reads all files.
    ///
    /// # Errors
    /// [`TlsError`]: the first file that cannot be used.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let stamps = ArcSwap::from_pointee(files.stamps());
        let current = ArcSwap::new(files.read()?);
        Ok(Tls { files, current, stamps })
    }

    /// Reads all files again; handshakes from now on use what they hold. Sessions that clients could resume are
    /// forgotten, so that a certificate that was taken back does not return by a ticket.
    ///
    /// # Errors
    /// [`TlsError`]: then what was used before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.stamps.store(Arc::new(self.files.stamps()));
        self.current.store(self.files.read()?);
        Ok(())
    }

    /// [`Tls::reload`], if a file has another time of change than at the last attempt. Answers whether.
    ///
    /// # Errors
    /// As [`Tls::reload`]; the same files are not tried again until one of them changes.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if **self.stamps.load() == self.files.stamps() {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// The certificate file, to name it in a log.
    pub fn certificate_file(&self) -> &Path {
        &self.files.certificate
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let issuers = match &self.client {
            ClientAuth::None => None,
            ClientAuth::Optional(issuers) | ClientAuth::Required(issuers) => Some(issuers),
        };
        let more =
            issuers.into_iter().flat_map(|issuers| [Some(&issuers.authorities), issuers.revoked.as_ref()]);
        [Some(&self.certificate), Some(&self.key)].into_iter().chain(more).flatten().map(PathBuf::as_path)
    }

    /// A file that is not there has no time: that it comes back is a change too.
    fn stamps(&self) -> Vec<Option<SystemTime>> {
        self.paths().map(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok()).collect()
    }

    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let unusable = |source| TlsError::Unusable { path: self.certificate.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match self.verifier(provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let chain = read_all::<CertificateDer<'static>>(&self.certificate, "certificate")?;
        let key = read_key(&self.key)?;
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (issuers, optional) = match &self.client {
            ClientAuth::None => return Ok(None),
            ClientAuth::Optional(issuers) => (issuers, true),
            ClientAuth::Required(issuers) => (issuers, false),
        };
        let path = &issuers.authorities;
        let mut roots = RootCertStore::empty();
        for authority in read_all::<CertificateDer<'static>>(path, "certificate of an authority")? {
            roots.add(authority).map_err(|source| TlsError::Unusable { path: path.clone(), source })?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if let Some(revoked) = &issuers.revoked {
            let lists = read_all::<CertificateRevocationListDer<'static>>(revoked, "revocation list")?;
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        if optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build();
        verifier.map(Some).map_err(|source| TlsError::Authorities { path: path.clone(), source })
    }
}

/// All objects of a kind in a file, of which there must be one.
fn read_all<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Malformed { path: path.to_owned(), what, source: None }),
        Err(error) => Err(TlsError::Malformed { path: path.to_owned(), what, source: Some(error) }),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Malformed {
        path: path.to_owned(),
        what: "private key",
        source: Some(error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}
