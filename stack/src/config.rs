//! The files that tell the servers how to run, and the clients how to reach them. Pure text, no I/O.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::state::{Credentials, State};

/// The users file that belongs to the store; the placeholders are filled in per stack.
pub(crate) const USERS_TEMPLATE: &str = include_str!("../../store/roles/local-users.xml");

/// What the embedded server's own session may do. It must be called `default` and come without a password from
/// 127.0.0.1 (the library gives no other way), so it may do nothing but open the listeners and count.
const HOST_USER: &str = "\
    <default>
      <no_password/>
      <networks><ip>127.0.0.1/32</ip></networks>
      <profile>stack_host</profile>
      <quota>stack_host</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT SELECT ON system.numbers</query>
      </grants>
    </default>
";

/// A further listener of Kafka.
#[derive(Clone, Serialize, Deserialize)]
pub struct KafkaListener {
    /// What it is called: capital letters only, not `PLAINTEXT` and not `CONTROLLER`.
    pub name: String,
    /// `SSL` or `SASL_SSL`.
    pub protocol: String,
    /// Kafka's settings of a listener without `listener.name.NAME.` in front, such as `ssl.keystore.key`. Values may have several lines.
    pub settings: Vec<(String, String)>,
}

impl std::fmt::Debug for KafkaListener {
    /// Values may be keys and passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaListener")
            .field("name", &self.name)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl KafkaListener {
    /// # Errors
    /// What is wrong with its name or protocol.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_plain = !self.name.is_empty() && self.name.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_plain || ["PLAINTEXT", "CONTROLLER"].contains(&self.name.as_str()) {
            return Err(format!(
                "a Kafka listener can't be called {:?}: capital letters, no name of Kafka's own",
                self.name
            ));
        }
        if !["SSL", "SASL_SSL"].contains(&self.protocol.as_str()) {
            return Err(format!("the Kafka listener {} can't speak {:?}: SSL or SASL_SSL", self.name, self.protocol));
        }
        Ok(())
    }
}

/// The lines of `server.properties` for further listeners, behind those of [`server_properties`], which they replace in part: Kafka takes a
/// key's last line.
pub(crate) fn listener_properties(plain: u16, controller: u16, listeners: &[(&KafkaListener, u16)]) -> String {
    let mut all = format!("PLAINTEXT://127.0.0.1:{plain}");
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    let mut settings = String::new();
    // Writing to a String cannot fail.
    for (listener, port) in listeners {
        let KafkaListener { name, protocol, .. } = listener;
        let _ = write!(all, ",{name}://127.0.0.1:{port}");
        let _ = write!(protocols, ",{name}:{protocol}");
        for (key, value) in &listener.settings {
            let _ = writeln!(settings, "listener.name.{}.{key}={}", name.to_lowercase(), properties_value(value));
        }
    }
    format!(
        "listeners={all},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners={all}\n\
         listener.security.protocol.map={protocols}\n\
         {settings}"
    )
}

/// Kafka's `server.properties`: one node that is broker and controller, tuned to start quickly.
/// Source of the figures: measured starts on two cores (stock settings need 3.7 s, these 0.6 s).
pub(crate) fn server_properties(data: &Path, port: u16, controller_port: u16) -> String {
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n",
        properties_value(&data.display().to_string())
    );
    text.push_str(
        "auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.partitions=6
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=2
num.io.threads=4
background.threads=2
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=8388608
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=1000
",
    );
    text
}

/// For benchmarks, behind the other lines: a new group waits for its first members, as it does by default (for 3 s), so that workers that are started
/// together share the partitions from the first record on. Otherwise who comes second waits for the first one's next heartbeat.
pub(crate) const WAIT_FOR_MEMBERS: &str = "group.initial.rebalance.delay.ms=300\n";

/// In a properties file a backslash escapes, and a line's end ends the value.
fn properties_value(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

/// ClickHouse's configuration file. `memory` is the server's limit in bytes. Merges give way to inserts and queries where the process may set that
/// (as root).
pub(crate) fn clickhouse_config(dir: &Path, http_port: u16, tcp_port: u16, memory: u64) -> String {
    let path = |name: &str| xml(&dir.join(name).display().to_string());
    format!(
        "<clickhouse>
  <logger>
    <log>{log}</log>
    <errorlog>{errors}</errorlog>
    <size>100M</size>
    <count>2</count>
    <console>0</console>
  </logger>
  <path>{data}/</path>
  <listen_host>127.0.0.1</listen_host>
  <http_port>{http_port}</http_port>
  <tcp_port>{tcp_port}</tcp_port>
  <default_profile>stack_host</default_profile>
  <user_directories>
    <users_xml><path>{users}</path></users_xml>
  </user_directories>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>268435456</mark_cache_size>
  <primary_index_cache_size>268435456</primary_index_cache_size>
  <index_mark_cache_size>67108864</index_mark_cache_size>
  <background_pool_size>4</background_pool_size>
  <os_threads_nice_value_merge_mutate>10</os_threads_nice_value_merge_mutate>
  <background_schedule_pool_initial_size>2</background_schedule_pool_initial_size>
  <max_thread_pool_size>2000</max_thread_pool_size>
  <max_thread_pool_free_size>64</max_thread_pool_free_size>
</clickhouse>
",
        log = path("clickhouse.log"),
        errors = path("clickhouse-errors.log"),
        data = path("clickhouse"),
        users = path("users.xml"),
    )
}

/// The users file: the store's roles with this stack's passwords, and the embedded server's own session.
///
/// # Errors
/// The template lacks a placeholder or a section; the message names it.
pub(crate) fn users_file(template: &str, users: &[Credentials]) -> Result<String, String> {
    let mut text = template.to_owned();
    for user in users {
        let placeholder = format!("{{{{{}_PASSWORD}}}}", user.role.name().to_uppercase());
        if !text.contains(&placeholder) {
            return Err(format!("the users file lacks {placeholder}"));
        }
        text = text.replace(&placeholder, &xml(&user.password));
    }
    without_default_user(&mut text);
    for (end, addition) in
        [("</profiles>", "    <stack_host/>\n"), ("</quotas>", "    <stack_host/>\n"), ("</users>", HOST_USER)]
    {
        let at = text.rfind(end).ok_or_else(|| format!("the users file lacks {end}"))?;
        text.insert_str(at, addition);
    }
    Ok(text)
}

/// A `default` user of the template's own gives way to [`HOST_USER`]: two of one name would shadow each other.
fn without_default_user(text: &mut String) {
    const END: &str = "</default>";
    let Some(users) = text.find("<users>") else { return };
    let Some(begin) = text[users..].find("<default>").map(|at| users + at) else { return };
    if let Some(end) = text[begin..].find(END).map(|at| begin + at + END.len()) {
        text.replace_range(begin..end, "");
    }
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `auditstream.toml` for one role. The other file's name is mentioned so that a person finds it.
pub(crate) fn client_toml(state: &State, user: &Credentials, other: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Connects to the local stack `{name}` as {user}. Gone when the stack goes down.\n\
         # {other}\n\n\
         [kafka]\n\
         bootstrap_servers = \"{bootstrap}\"\n\n\
         [clickhouse]\n\
         url = \"{url}\"\n\
         database = \"audit\"\n\
         user = \"{user}\"\n\
         password = \"{password}\"\n",
        name = state.name,
        user = user.user,
        bootstrap = state.kafka_bootstrap,
        url = state.clickhouse_url,
        password = user.password,
    );
    if let Some(registry) = &state.registry_url {
        let _ = write!(text, "\n[schema]\nregistry_url = \"{registry}\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Role;

    fn users() -> Vec<Credentials> {
        Role::ALL.iter().map(|role| Credentials::new(*role, format!("pw-{}", role.name()))).collect()
    }

    #[test]
    fn kafka_listens_on_loopback_only() {
        let text = server_properties(Path::new("/tmp/a\\b"), 20_001, 20_002);
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002\n"));
        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:20002\n"));
        assert!(text.contains("log.dirs=/tmp/a\\\\b\n"));
        assert!(text.contains("auto.create.topics.enable=false\n"));
        assert!(!text.contains("0.0.0.0"));
        assert!(text.lines().all(|line| line.split_once('=').is_some_and(|(key, _)| key == key.trim())));
    }

    #[test]
    fn further_listeners_are_on_loopback_and_keep_their_lines_together() {
        let settings = vec![("ssl.keystore.key".to_owned(), "-----BEGIN\nabc\n".to_owned())];
        let one = KafkaListener { name: "TLS".into(), protocol: "SSL".into(), settings };
        one.check().unwrap();
        let text = listener_properties(20_001, 20_002, &[(&one, 20_003)]);
        assert!(
            text.contains("listeners=PLAINTEXT://127.0.0.1:20001,TLS://127.0.0.1:20003,CONTROLLER://127.0.0.1:20002\n")
        );
        assert!(text.contains("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL\n"));
        assert!(text.contains("listener.name.tls.ssl.keystore.key=-----BEGIN\\nabc\\n\n"), "{text}");
        for (name, protocol) in [("", "SSL"), ("tls", "SSL"), ("CONTROLLER", "SSL"), ("TLS", "PLAINTEXT")] {
            let wrong = KafkaListener { name: name.into(), protocol: protocol.into(), settings: Vec::new() };
            assert!(wrong.check().is_err(), "{name} {protocol}");
        }
        assert!(!format!("{one:?}").contains("abc"));
    }

    #[test]
    fn clickhouse_paths_are_escaped() {
        let text = clickhouse_config(Path::new("/tmp/a&b"), 20_003, 20_004, 1_000);
        assert!(text.contains("<path>/tmp/a&amp;b/clickhouse/</path>"));
        assert!(text.contains("<http_port>20003</http_port>"));
        assert!(text.contains("<tcp_port>20004</tcp_port>"));
        assert!(text.contains("<listen_host>127.0.0.1</listen_host>"));
    }

    #[test]
    fn the_stores_users_file_can_be_filled_in() {
        let text = users_file(USERS_TEMPLATE, &users()).unwrap();
        assert!(!text.contains("{{"));
        for role in Role::ALL {
            assert!(text.contains(&format!("<{}>", role.user())), "{} is no user", role.user());
            assert!(text.contains(&format!("pw-{}", role.name())));
        }
        assert!(text.contains("GRANT SYSTEM LISTEN"));
    }

    #[test]
    fn the_templates_own_default_user_gives_way() {
        let mut text = "<profiles><default/></profiles><users> <default><password/></default><a/></users>".to_owned();
        without_default_user(&mut text);
        assert_eq!(text, "<profiles><default/></profiles><users> <a/></users>");
        without_default_user(&mut text);
        assert_eq!(text, "<profiles><default/></profiles><users> <a/></users>");
    }

    #[test]
    fn a_users_file_without_a_placeholder_is_refused() {
        let problem = users_file("<users></users>", &users()).unwrap_err();
        assert!(problem.contains("{{ADMIN_PASSWORD}}"), "{problem}");
    }
}
