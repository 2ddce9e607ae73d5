//! `cargo xtask test-chart`: whether the Helm chart is what Kubernetes and an operator expect.
//!
//! Lint, unit tests, every file of `ci/*-values.yaml` rendered for several versions of Kubernetes and checked strictly against the schemas of Kubernetes and
//! of the operators, every file of `ci/bad/` refused with the message in its first line, and the README's table against the values.

pub(crate) mod schemas;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use auditstream_stack::Progress;
use serde_json::Value;

use self::schemas::Schemas;
use crate::child::{command, succeed, workspace};
use crate::go_tools::{HELM, HELM_UNITTEST, KUBECONFORM, need_go};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the table of values into the chart's README instead of comparing it.
    #[arg(long)]
    write_table: bool,
    /// Do nothing, and say so, where there is no Go and the tools are not in the cache either. Building them takes about three minutes.
    #[arg(long)]
    if_go: bool,
}

/// The oldest that the chart takes, one in between, the newest that there are schemas of.
const KUBERNETES: [&str; 3] = ["1.27.0", "1.33.0", "1.37.0"];
/// KEDA's API.
pub(crate) const KEDA: &str = "keda.sh/v1alpha1";
/// What clusters with every operator offer.
const OPERATORS: [&str; 5] =
    [KEDA, "monitoring.coreos.com/v1", "kafka.strimzi.io/v1beta2", "cert-manager.io/v1", "external-secrets.io/v1"];
/// Values whose pods can be started without any file: their configuration is given to the program, if it is built.
const SELF_CONTAINED: [&str; 2] = ["default-values.yaml", "third-component-values.yaml"];

struct Chart {
    folder: PathBuf,
    helm: PathBuf,
    kubeconform: PathBuf,
    schemas: Schemas,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = workspace().join("helm/auditstream");
    table::check(&folder, args.write_table)?;
    if args.write_table {
        return Ok(());
    }
    let progress = crate::progress::shown();
    let cache = auditstream_stack::cache_dir()?;
    let tools = [HELM, KUBECONFORM, HELM_UNITTEST];
    let installed = tools.iter().all(|tool| tool.is_installed(&cache)) && Schemas::are_there(&cache);
    if args.if_go && !installed && need_go().is_err() {
        eprintln!("left out: there is no Go to build helm, kubeconform and helm-unittest with");
        return Ok(());
    }
    // Python, for one.
    auditstream_stack::ensure_installed(progress.as_ref())?;
    let chart = Chart {
        folder,
        helm: HELM.ensure(&cache, progress.as_ref())?,
        kubeconform: KUBECONFORM.ensure(&cache, progress.as_ref())?,
        schemas: Schemas::ensure(&cache, progress.as_ref())?,
    };
    let unittest = HELM_UNITTEST.ensure(&cache, progress.as_ref())?;
    progress.step("helm lint, helm-unittest");
    for values in chart.values("ci")? {
        let mut lint = command(&chart.helm)?;
        lint.args(["lint", "--strict", "--quiet", "--kube-version", KUBERNETES[1], "--values"]).arg(&values);
        // Lint knows no operators.
        if file_name(&values) != "secure-values.yaml" {
            succeed("helm lint", lint.arg(&chart.folder))?;
        }
    }
    succeed("helm-unittest", command(unittest)?.arg(&chart.folder))?;
    chart.matrix(progress.as_ref())?;
    chart.refused(progress.as_ref())
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

impl Chart {
    /// The files of values in a folder of the chart, in order.
    fn values(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join(folder);
        let listed = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let mut files = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        ensure!(!files.is_empty(), "{} has no values to try", folder.display());
        Ok(files)
    }

    fn template(&self, values: &Path, kubernetes: &str, operators: &[&str]) -> Result<Output> {
        let mut helm = Command::new(&self.helm);
        helm.args(["template", "trail", "--namespace", "audit", "--kube-version", kubernetes, "--values"]).arg(values);
        for operator in operators {
            helm.args(["--api-versions", operator]);
        }
        helm.arg(&self.folder).output().context("run helm template")
    }

    /// Each file of values, for each version of Kubernetes, with every operator and with none.
    fn matrix(&self, progress: &dyn Progress) -> Result<()> {
        let mut objects = 0;
        for values in self.values("ci")? {
            let name = file_name(&values);
            progress.step(&format!("render {name}, check with kubeconform"));
            for kubernetes in KUBERNETES {
                for operators in [&OPERATORS[..], &[]] {
                    let rendered = self.template(&values, kubernetes, operators)?;
                    let said = String::from_utf8_lossy(&rendered.stderr);
                    if operators.is_empty() && said.contains("keda is not installed in this cluster") {
                        continue;
                    }
                    ensure!(rendered.status.success(), "{name}, Kubernetes {kubernetes}: {said}");
                    let documents = self.schemas.documents(&rendered.stdout)?;
                    objects += documents.len();
                    for (version, kind) in documents
                        .iter()
                        .filter_map(|document| Some((document["apiVersion"].as_str()?, &document["kind"])))
                    {
                        let foreign = OPERATORS.contains(&version);
                        ensure!(!foreign || !operators.is_empty(), "{name}: {kind} where there is no {version}");
                    }
                    self.conforms(name, kubernetes, &rendered.stdout)?;
                    if SELF_CONTAINED.contains(&name) && operators.is_empty() {
                        starts(name, &documents)?;
                    }
                }
            }
        }
        eprintln!("{objects} objects are as Kubernetes and the operators expect them");
        Ok(())
    }

    fn conforms(&self, name: &str, kubernetes: &str, rendered: &[u8]) -> Result<()> {
        let file = std::env::temp_dir().join(format!("auditstream-chart-{}.yaml", std::process::id()));
        fs::write(&file, rendered).with_context(|| format!("write {}", file.display()))?;
        let mut kubeconform = Command::new(&self.kubeconform);
        kubeconform.args(["-strict", "-kubernetes-version", kubernetes]);
        for location in self.schemas.locations(&self.folder.join("ci/schemas")) {
            kubeconform.args(["-schema-location", &location]);
        }
        let checked = kubeconform.arg(&file).stdin(Stdio::null()).output().context("run kubeconform");
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        let checked = checked?;
        let said = String::from_utf8_lossy(&checked.stdout);
        ensure!(checked.status.success(), "{name}, Kubernetes {kubernetes}:\n{said}");
        Ok(())
    }

    /// Values that must fail, with the message that their first line holds.
    fn refused(&self, progress: &dyn Progress) -> Result<()> {
        progress.step("values that must be refused");
        let files = self.values("ci/bad")?;
        for values in &files {
            let text = fs::read_to_string(values).with_context(|| format!("read {}", values.display()))?;
            let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
            let expected = expected.with_context(|| format!("{}: opens with no expectation", values.display()))?;
            let rendered = self.template(values, KUBERNETES[1], &OPERATORS)?;
            let said = String::from_utf8_lossy(&rendered.stderr);
            if rendered.status.success() || !said.contains(expected) {
                bail!("{}: expected to be refused with `{expected}`, found:\n{said}", values.display());
            }
        }
        eprintln!("{} wrong values are refused, each with its path", files.len());
        Ok(())
    }
}

/// Whether the program takes the configuration and the variables that each pod gives it.
fn starts(name: &str, documents: &[Value]) -> Result<()> {
    let program = crate::test::target()?.join("release/auditstream");
    if !program.is_file() {
        return Ok(());
    }
    let configs = documents.iter().filter(|document| document["kind"] == "ConfigMap");
    let config = configs.filter_map(|document| document["data"]["auditstream.toml"].as_str()).next();
    let config = config.with_context(|| format!("{name}: no configuration"))?;
    let file = std::env::temp_dir().join(format!("auditstream-chart-{}.toml", std::process::id()));
    fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
    let mut checked = Ok(());
    for document in documents.iter().filter(|document| document["kind"] == "Deployment") {
        let container = &document["spec"]["template"]["spec"]["containers"][0];
        // A component of somebody else's program may have sections of its own.
        if container["args"][0] == "serve" {
            continue;
        }
        let mut program = Command::new(&program);
        program.args(["config", "check"]).env_clear();
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = variable["value"].as_str().unwrap_or("of a secret");
            program.env(variable["name"].as_str().unwrap_or_default(), value);
        }
        let said = program.env("AUDITSTREAM_CONFIG", &file).output().context("run auditstream config check")?;
        if !said.status.success() && checked.is_ok() {
            let what = document["metadata"]["name"].as_str().unwrap_or_default();
            checked = Err(anyhow::anyhow!("{name}, {what}: {}", String::from_utf8_lossy(&said.stderr)));
        }
    }
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    checked
}
