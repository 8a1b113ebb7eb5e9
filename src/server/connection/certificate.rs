//! The certificate of a server: read from its files, and replaced while the server runs.
//!
//! Open connections keep their keys. Handshakes after a reload use the new certificate.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::error::Error;
use crate::sync::Arc;

/// HTTP/2, by its name in ALPN.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// The files of a server's certificate.
///
/// TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1 by ALPN. A handshake has
/// [`Config::read_timeout`](crate::server::Config::read_timeout).
///
/// # Examples
///
/// ```
/// use ringmain::server::Tls;
///
/// let tls = Tls { certificates: "no/chain.pem".into(), key: "no/key.pem".into() };
/// let error = tls.check().unwrap_err();
/// assert!(error.is_tls() && error.to_string().contains("no/chain.pem"));
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    /// A PEM file: the certificate, followed by those that lead to its root.
    pub certificates: PathBuf,
    /// A PEM file with its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl Tls {
    /// Reads the files, as a server does when it binds.
    ///
    /// # Errors
    ///
    /// They cannot be read or used ([`Error::is_tls`]). The text names the file.
    pub fn check(&self) -> Result<(), Error> {
        read(self).map(drop)
    }
}

/// The current certificate.
#[derive(Debug)]
pub(super) struct Identity {
    files: Tls,
    /// Read by every handshake, replaced rarely.
    current: ArcSwap<ServerConfig>,
}

impl Identity {
    /// Reads the files.
    pub(super) fn load(files: Tls) -> Result<Self, Error> {
        let current = ArcSwap::new(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again. If they cannot be used, the current certificate stays.
    pub(super) fn reload(&self) -> Result<(), Error> {
        self.current.store(read(&self.files)?);
        Ok(())
    }

    /// The configuration of the next handshake.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn read(files: &Tls) -> Result<Arc<ServerConfig>, Error> {
    let Tls { certificates, key } = files;
    let fault = |what: &str, path: &Path, source: Box<dyn StdError + Send + Sync>| {
        Error::tls(format!("read the {what} in {}", path.display()), source)
    };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault("certificate", certificates, error.into()))?;
    if chain.is_empty() {
        return Err(fault("certificate", certificates, "there is none".into()));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| fault("private key", key, error.into()))?;
    let cannot_use = |error: rustls::Error| {
        let (certificates, key) = (certificates.display(), key.display());
        Error::tls(format!("use the certificate in {certificates} with the key in {key}"), error)
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(cannot_use)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(cannot_use)?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // Tickets: the client keeps the state of its session, not this process.
    config.ticketer = ring::Ticketer::new().map_err(cannot_use)?;
    Ok(Arc::new(config))
}
