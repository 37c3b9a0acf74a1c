//! [`Kind`]: a kind of resource of any crate, as operators read and write it.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use meta::MetaError;
use model::{Resource, ResourceError, TenantId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::{Problem, field_in};

/// The field that says whose a resource is. It comes from the listener, never from the operator, and is not shown.
const TENANT: &str = "tenant";

/// Resolves when everything up to a revision of the Meta Service counts on this node.
pub type CaughtUp = Arc<dyn Fn(u64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A kind of resource that operators list, read, write and remove below `/api/v1`. This crate knows none of them: whoever puts
/// the node together hands them over, and a new kind is one line there.
///
/// # For owners of a kind
///
/// - **What serde makes of it is interface**: an object whose fields are shown to operators, and taken from them, under these names. All
///   of it is shown, so that it must hold no secret, and what is wrong with a value may be told with the value.
/// - **Unknown fields are refused** (`deny_unknown_fields`), so that an operator who mistypes hears of it. What may be left out
///   has a default.
/// - **Two fields are of the key**, which is `tenant/name`: `tenant`, and `name` unless [`Kind::named_by`] says otherwise.
/// - **[`Resource::validate`] names the field** that breaks a rule, as the operator wrote it.
/// - A stored one that cannot be read is listed as such, and can be replaced and removed.
pub struct Kind {
    pub(crate) path: &'static str,
    pub(crate) stored_as: &'static str,
    pub(crate) name_field: &'static str,
    pub(crate) count_max: usize,
    pub(crate) is_listed: bool,
    pub(crate) caught_up: CaughtUp,
    read: fn(Map<String, Value>) -> Result<Bytes, Problem>,
    show: fn(&[u8]) -> Result<Value, ResourceError>,
}

impl Kind {
    /// The kind `R` below `/api/v1/PATH`, which is the word for many of them. A write is answered when `caught_up` says that it
    /// counts.
    pub fn of<R: Resource + Serialize + DeserializeOwned>(path: &'static str, caught_up: &CaughtUp) -> Self {
        Self {
            path,
            stored_as: R::KIND,
            name_field: "name",
            count_max: usize::MAX,
            is_listed: true,
            caught_up: Arc::clone(caught_up),
            read: read::<R>,
            show: show::<R>,
        }
    }

    /// At most so many are stored. Operators who write at the same moment may get a few more in, so that whoever reads them has
    /// to have a bound of its own.
    #[must_use]
    pub fn at_most(self, count: usize) -> Self {
        Self { count_max: count, ..self }
    }

    /// Named by a field that is called otherwise.
    #[must_use]
    pub fn named_by(self, field: &'static str) -> Self {
        Self { name_field: field, ..self }
    }

    /// Without a list: what is shown at its path comes from somebody else.
    #[must_use]
    pub fn listed_elsewhere(self) -> Self {
        Self { is_listed: false, ..self }
    }

    /// The path of one in the store.
    pub(crate) fn stored_path(&self, tenant: &TenantId, name: &str) -> String {
        format!("{}/{tenant}/{name}", self.stored_as)
    }

    /// The name in what an operator wrote, which has to be there if the path does not say it, and the same if it does.
    pub(crate) fn name_in(&self, given: &Map<String, Value>, path: Option<&str>) -> Result<String, Problem> {
        match (given.get(self.name_field), path) {
            (Some(Value::String(name)), None) => Ok(name.clone()),
            (Some(Value::String(name)), Some(path)) if name == path => Ok(name.clone()),
            (None, Some(path)) => Ok(path.to_owned()),
            (_, None) => Err(Problem::field(self.name_field, "must be given, as a text")),
            (Some(_), Some(_)) => {
                Err(Problem::field(self.name_field, "must be that of the path, or left out"))
            }
        }
    }

    /// What an operator wrote, checked, as it is to be stored.
    pub(crate) fn read(
        &self,
        tenant: &TenantId,
        name: &str,
        mut given: Map<String, Value>,
    ) -> Result<Bytes, Problem> {
        if given.contains_key(TENANT) {
            return Err(Problem::field(TENANT, "unknown field"));
        }
        given.insert(TENANT.to_owned(), tenant.as_str().into());
        given.insert(self.name_field.to_owned(), name.into());
        (self.read)(given)
    }

    /// A stored one, as operators see it.
    pub(crate) fn shown(&self, stored: &[u8]) -> Result<Value, ResourceError> {
        (self.show)(stored)
    }
}

fn read<R: Resource + DeserializeOwned>(given: Map<String, Value>) -> Result<Bytes, Problem> {
    let resource: R = serde_path_to_error::deserialize(Value::Object(given)).map_err(|error| {
        let (place, text) = (error.path().to_string(), error.inner().to_string());
        match field_in(&text) {
            Some((rule, field)) => Problem::field(field, rule),
            None => Problem::field(place, text),
        }
    })?;
    resource.validate().map_err(MetaError::Resource)?;
    Ok(resource.encode())
}

fn show<R: Resource + Serialize>(stored: &[u8]) -> Result<Value, ResourceError> {
    let malformed = ResourceError::Malformed { kind: R::KIND, field: "body" };
    let mut shown = serde_json::to_value(R::decode(stored)?).map_err(|_| malformed)?;
    if let Value::Object(fields) = &mut shown {
        fields.remove(TENANT);
    }
    Ok(shown)
}

impl Problem {
    /// There are as many as there may be.
    pub(crate) fn full(most: usize) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, format!("there are {most} already"))
    }
}
