//! What a test asks of its fixture, and the configuration file that follows from it.

/// What a test needs.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) name: &'static str,
    pub(crate) alone: bool,
    pub(crate) own_servers: bool,
    pub(crate) prepared: bool,
    pub(crate) partitions: i32,
    short_sessions: bool,
    kafka: &'static str,
    consumer: &'static str,
    schema: &'static str,
}

impl Options {
    /// For a test that may run beside others. `name` names its folder, topics and group: letters, digits and `-`.
    #[must_use]
    pub fn light(name: &'static str) -> Self {
        Self {
            name,
            alone: false,
            own_servers: false,
            prepared: true,
            partitions: 6,
            short_sessions: false,
            kafka: "",
            consumer: "",
            schema: "",
        }
    }

    /// For a test that has the machine for itself, because it makes load or measures time.
    #[must_use]
    pub fn heavy(name: &'static str) -> Self {
        Self { alone: true, ..Self::light(name) }
    }

    /// For a test that stops servers: they are its own.
    #[must_use]
    pub fn own_servers(name: &'static str) -> Self {
        Self { own_servers: true, ..Self::heavy(name) }
    }

    /// Without topics, database and tables: the test makes them.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { prepared: false, ..self }
    }

    /// With so many partitions of the source topic; 6 by default.
    #[must_use]
    pub fn partitions(self, partitions: i32) -> Self {
        Self { partitions, ..self }
    }

    /// With sessions of two seconds: the group misses a dead worker soon, and on a busy machine perhaps one that only stalls.
    #[must_use]
    pub fn short_sessions(self) -> Self {
        Self { short_sessions: true, ..self }
    }

    /// With these lines of `[kafka.properties]` in the configuration file.
    #[must_use]
    pub fn kafka(self, kafka: &'static str) -> Self {
        Self { kafka, ..self }
    }

    /// With these further lines of `[consumer]` in the configuration file.
    #[must_use]
    pub fn consumer(self, consumer: &'static str) -> Self {
        Self { consumer, ..self }
    }

    /// With these lines of `[schema]` in the configuration file.
    #[must_use]
    pub fn schema(self, schema: &'static str) -> Self {
        Self { schema, ..self }
    }

    /// The configuration file of the test's processes.
    pub(crate) fn config_text(&self, names: &Names<'_>) -> String {
        let Names { bootstrap, topic, clickhouse, database, user, password } = names;
        let Self { kafka, consumer, schema, .. } = self;
        let sessions = if self.short_sessions {
            "\"session.timeout.ms\" = \"2000\"\n\"heartbeat.interval.ms\" = \"300\"\n"
        } else {
            ""
        };
        format!(
            "[kafka]\nbootstrap_servers = \"{bootstrap}\"\ntopic = \"{topic}\"\ndead_letter_topic = \"{topic}.dlq\"\n\n\
             [kafka.properties]\n{sessions}{kafka}\n\
             [clickhouse]\nurl = \"{clickhouse}\"\ndatabase = \"{database}\"\nuser = \"{user}\"\npassword = \"{password}\"\n\n\
             [schema]\n{schema}\n\n\
             [consumer]\ngroup_id = \"{topic}\"\nbatch_max_age_ms = 200\nhttp_listen = \"127.0.0.1:0\"\n{consumer}\n\n\
             [log]\nformat = \"json\"\nlevel = \"info\"\n"
        )
    }
}

/// What a configuration file names.
pub(crate) struct Names<'a> {
    pub(crate) bootstrap: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) clickhouse: &'a str,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}
