//! JSON schemas of Kubernetes' objects and of the operators', as kubeconform reads them.
//!
//! Kubernetes' own come from the Python package `kubernetes-validate`, which ships them generated from Kubernetes' API description, strict ones too. The
//! operators' are taken from the resource definitions in their Go modules and made strict here. Strimzi is no Go module: what the chart uses of its two
//! kinds is written down in the chart's `ci/schemas`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use auditstream_stack::Progress;
use serde_json::Value;

use super::KUBERNETES;
use crate::go_tools::module_folder;
use crate::others::{made, venv};

const PACKAGES: &[&str] = &["kubernetes-validate==1.37.0", "PyYAML==6.0.3"];
pub(crate) const FOLDER: &str = "kubernetes-schemas-1.37.0";

/// Go module, version, file of a resource definition.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    ("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    ("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    ("github.com/cert-manager/cert-manager", "v1.21.2", "deploy/crds/cert-manager.io_certificates.yaml"),
    (
        "github.com/external-secrets/external-secrets",
        "v1.3.2",
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
];

/// All of a stream's documents as one JSON array.
const TO_JSON: &str = "import json, sys, yaml\njson.dump([d for d in yaml.safe_load_all(sys.stdin) if d], sys.stdout)";

pub(crate) struct Schemas {
    folder: PathBuf,
}

impl Schemas {
    pub(crate) fn are_there(cache: &Path) -> bool {
        cache.join(FOLDER).join("complete").is_file()
    }

    /// Fetches what is missing.
    pub(crate) fn ensure(cache: &Path, progress: &dyn Progress) -> Result<Self> {
        let folder = made(cache, FOLDER, |folder| {
            progress.step("schemas of Kubernetes and of the operators (once)");
            venv(folder, PACKAGES)?;
            let schemas = Self { folder: folder.to_owned() };
            let libraries = folder.join("lib");
            let python = fs::read_dir(&libraries).with_context(|| format!("read {}", libraries.display()))?;
            let python = python.flatten().next().context("a Python folder")?.path();
            let from = python.join("site-packages/kubernetes_validate/kubernetes-json-schema");
            for version in KUBERNETES {
                take_version(&from, version, &folder.join("kubernetes"))?;
            }
            fs::remove_dir_all(&from).with_context(|| format!("remove {}", from.display()))?;
            schemas.convert()
        })?;
        Ok(Self { folder })
    }

    /// The documents of a YAML stream.
    pub(crate) fn documents(&self, yaml: &[u8]) -> Result<Vec<Value>> {
        let mut python = Command::new(self.folder.join("bin/python3"));
        let mut python = python
            .args(["-c", TO_JSON])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start Python with PyYAML")?;
        // It reads all of it before it writes.
        python.stdin.take().context("a pipe")?.write_all(yaml).context("hand YAML to Python")?;
        let answer = python.wait_with_output().context("wait for Python")?;
        ensure!(answer.status.success(), "a file is no YAML");
        serde_json::from_slice(&answer.stdout).context("read Python's JSON")
    }

    fn convert(&self) -> Result<()> {
        let folder = self.folder.join("operators");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for (module, version, file) in DEFINITIONS {
            let path = module_folder(module, version)?.join(file);
            let yaml = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            for definition in self.documents(&yaml)? {
                let kind = definition["spec"]["names"]["kind"].as_str().context("a definition without a kind")?;
                let versions = definition["spec"]["versions"].as_array().context("a definition without versions")?;
                for version in versions {
                    let name = version["name"].as_str().context("a version without a name")?;
                    let mut schema = version["schema"]["openAPIV3Schema"].clone();
                    make_strict(&mut schema);
                    let file = folder.join(format!("{}_{name}.json", kind.to_lowercase()));
                    fs::write(&file, schema.to_string()).with_context(|| format!("write {}", file.display()))?;
                }
            }
        }
        Ok(())
    }

    /// What kubeconform is told; `strimzi` is the chart's own folder.
    pub(crate) fn locations(&self, strimzi: &Path) -> [String; 3] {
        let kubernetes = self.folder.join("kubernetes");
        let operators = self.folder.join("operators");
        let own = "{{.ResourceKind}}_{{.ResourceAPIVersion}}.json";
        [
            format!(
                "{}/{{{{.NormalizedKubernetesVersion}}}}-local{{{{.StrictSuffix}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
                kubernetes.display()
            ),
            format!("{}/{own}", operators.display()),
            format!("{}/{own}", strimzi.display()),
        ]
    }
}

/// The strict schemas of one version. They name each other by a path that only the package's own reader knows: here by the file beside them.
fn take_version(from: &Path, version: &str, to: &Path) -> Result<()> {
    let name = format!("v{version}-local-strict");
    let (from, to) = (from.join(&name), to.join(&name));
    fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(&from).with_context(|| format!("read {}", from.display()))? {
        let path = entry.context("read a folder")?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let file = to.join(path.file_name().context("a file without a name")?);
        let text = text.replace("\"/api/_definitions.json#", "\"_definitions.json#");
        let mut schema: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        if let Some(schema) = schema.as_object_mut() {
            // It would say that the neighbours are on the network.
            schema.remove("$id");
        }
        fs::write(&file, schema.to_string()).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// A resource definition lets unknown keys pass, which the server then drops without a word: here they are errors.
fn make_strict(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let has_properties = object.get("properties").is_some_and(Value::is_object);
            let is_open = object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if has_properties && !is_open && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            for (key, value) in object.iter_mut() {
                // Within a combination the other half has the rest of the keys.
                if !matches!(key.as_str(), "anyOf" | "oneOf" | "allOf" | "not") {
                    make_strict(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_strict),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_become_errors_where_keys_are_known() {
        let mut schema = serde_json::json!({
            "properties": { "spec": { "properties": { "a": { "type": "string" } } }, "metadata": { "type": "object" } },
            "anyOf": [{ "properties": { "b": {} } }],
        });
        make_strict(&mut schema);
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["spec"]["additionalProperties"], false);
        assert!(schema["properties"]["metadata"].get("additionalProperties").is_none());
        assert!(schema["anyOf"][0].get("additionalProperties").is_none());
    }
}
