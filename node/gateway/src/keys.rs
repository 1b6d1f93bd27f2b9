//! Access keys and their secrets, as the authentication sees them.

use std::fmt;
use std::sync::Arc;

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};
use zeroize::Zeroize;

/// A secret access key. Wiped when dropped; `Debug` shows nothing of it; it has no `Display`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Who may speak: the secrets by access key. Asked once for every request, so it answers from memory.
pub trait Keys: Send + Sync + 'static {
    /// The secret of an access key; `None` when there is no such key.
    fn secret(&self, access_key: &str) -> Option<Secret>;
}

/// [`Keys`] as s3s wants them.
pub(crate) struct KeysAdapter(pub(crate) Arc<dyn Keys>);

#[async_trait::async_trait]
impl S3Auth for KeysAdapter {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.secret(access_key) {
            Some(secret) => Ok(SecretKey::from(secret.0.as_str())),
            None => Err(s3_error!(InvalidAccessKeyId, "The access key is not known here.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let shown = format!("{:?}", Secret::new("hunter2".into()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
