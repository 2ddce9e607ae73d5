//! All versions of a subject, and the version that a schema is: what the gate and custom fields ask.

use hyper::Method;

use super::{
    Reference, Registry, RegistryError, SCHEMA_NOT_FOUND, SUBJECT_NOT_FOUND, http, id_of, request, segment, unexpected,
};

impl Registry {
    /// The numbers of a subject's versions, ascending.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when there is no such subject; see [`RegistryError`].
    pub async fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let what = format!("subject {subject}");
        let path = format!("/subjects/{}/versions", segment(subject));
        let answer = self.ask(Method::GET, &path, None, &[SUBJECT_NOT_FOUND], &what).await?;
        let number = |version: &serde_json::Value| version.as_u64().and_then(|number| u32::try_from(number).ok());
        let numbers: Option<Vec<u32>> = answer.as_array().and_then(|all| all.iter().map(number).collect());
        let mut numbers = numbers.ok_or_else(|| {
            unexpected(&what, &format!("no list of numbers: {}", http::shortened(&answer.to_string())))
        })?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Id and version under which a subject has this very schema.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when it does not have it; see [`RegistryError`].
    pub async fn lookup_version(
        &self,
        subject: &str,
        schema: &str,
        references: &[Reference],
    ) -> Result<(u32, u32), RegistryError> {
        let what = format!("such schema under subject {subject}");
        let body = request(schema, references);
        let missing = [SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND];
        let path = format!("/subjects/{}", segment(subject));
        let answer = self.ask(Method::POST, &path, Some(&body), &missing, &what).await?;
        let version = answer["version"].as_u64().and_then(|version| u32::try_from(version).ok());
        let version = version.ok_or_else(|| unexpected(&what, "it has no version"))?;
        Ok((id_of(&answer, &what)?, version))
    }
}
