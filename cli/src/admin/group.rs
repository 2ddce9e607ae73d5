//! The consumer group: who is in it, where reading would begin at a time, and setting it there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use auditstream_consumer::topic_id::{self, Reread};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::{Admin, PartitionLag, TIMEOUT};

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// As the broker sees it.
    pub(crate) host: String,
    pub(crate) client_id: String,
    /// Partitions of the topic that it reads.
    pub(crate) partitions: Vec<i32>,
}

/// Where a partition is to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewOffset {
    pub(crate) partition: i32,
    /// `None`: nothing was ever committed.
    pub(crate) from: Option<i64>,
    pub(crate) to: i64,
    /// Where the log ends now. Up to there everything is read again, whatever the ledger says.
    pub(crate) end: i64,
}

impl Admin {
    /// The members of a group that speaks the classic protocol; empty for another group, whose members this client can't see. Blocks.
    pub(crate) fn members(&self, group: &str, topic: &str) -> anyhow::Result<Vec<Member>> {
        let list = self.client.inner().fetch_group_list(Some(group), TIMEOUT).with_context(|| self.silent())?;
        let group = list.groups().iter().find(|found| found.name() == group);
        let members = group.map(|group| group.members()).unwrap_or_default();
        let one = |member: &rdkafka::groups::GroupMemberInfo| Member {
            host: member.client_host().trim_start_matches('/').to_owned(),
            client_id: member.client_id().to_owned(),
            partitions: member.assignment().and_then(|bytes| assigned(bytes, topic)).unwrap_or_default(),
        };
        Ok(members.iter().map(one).collect())
    }

    /// The first offset of each partition whose record is of `time_ms` (milliseconds since 1970) or later; the log's end where there is none. Blocks.
    pub(crate) fn offsets_at(
        &self,
        group: &str,
        topic: &str,
        lags: &[PartitionLag],
        time_ms: i64,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let consumer = self.consumer(group)?;
        let mut list = TopicPartitionList::new();
        for lag in lags {
            list.add_partition_offset(topic, lag.partition, Offset::Offset(time_ms))?;
        }
        let found = consumer.offsets_for_times(list, TIMEOUT).context("the offsets at that time")?;
        let mut offsets = BTreeMap::new();
        for lag in lags {
            let element = found.find_partition(topic, lag.partition);
            let element =
                element.ok_or_else(|| anyhow!("the broker said nothing about partition {}", lag.partition))?;
            element.error().with_context(|| format!("partition {}", lag.partition))?;
            let offset = if let Offset::Offset(offset) = element.offset() { offset } else { lag.high };
            offsets.insert(lag.partition, offset);
        }
        Ok(offsets)
    }

    /// Commits the offsets for the group, each with the topic's id as one that a human has set, and reads them back. The brokers refuse it while the
    /// group has members. Blocks.
    pub(crate) fn set_offsets(&self, group: &str, topic: &str, offsets: &[NewOffset]) -> anyhow::Result<()> {
        let consumer = self.consumer(group)?;
        let id = topic_id::look_up(consumer.client(), topic, TIMEOUT).context("the topic's id")?;
        let mut list = TopicPartitionList::new();
        for new in offsets {
            list.add_partition_offset(topic, new.partition, Offset::Offset(new.to))?;
            if let (Some(mut element), Some(id)) = (list.find_partition(topic, new.partition), &id) {
                element.set_metadata(id.set_metadata(Reread::Until(new.end)));
            }
        }
        match consumer.commit(&list, CommitMode::Sync) {
            // An answer may refuse some partitions and take the others.
            Ok(()) => {
                let found = super::committed(&consumer, &list).context("the new offsets can't be read back")?;
                all_taken(topic, &list, &found)
            }
            Err(error) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::StaleMemberEpoch,
                ) => bail!("group {group} has members; nothing was changed. Stop its workers first"),
                _ => Err(error).context("the brokers refuse the new offsets"),
            },
        }
    }

    /// The timestamp of the first record that is not committed, milliseconds since 1970, of each partition that has one; a partition whose record does
    /// not come in time is left out. Blocks.
    pub(crate) fn oldest_unread(
        &self,
        topic: &str,
        lags: &[PartitionLag],
        limit: Duration,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let behind = lags.iter().filter(|lag| lag.lag() > 0);
        let from: Vec<_> = behind.map(|lag| (lag.partition, lag.committed.unwrap_or(lag.low).max(lag.low))).collect();
        if from.is_empty() {
            return Ok(BTreeMap::new());
        }
        let records = self.records()?.first_of_each(topic, &from, limit)?;
        Ok(records.into_iter().map(|record| (record.partition, record.timestamp_ms)).collect())
    }
}

/// Whether each partition is where it was set.
///
/// # Errors
/// Names each that is not, with where it is.
fn all_taken(topic: &str, set: &TopicPartitionList, found: &TopicPartitionList) -> anyhow::Result<()> {
    let not_taken: Vec<_> = set
        .elements()
        .iter()
        .filter_map(|wanted| {
            let is = found.find_partition(topic, wanted.partition());
            let offset = is.as_ref().map_or(Offset::Invalid, |is| is.offset());
            let is_taken = offset == wanted.offset() && is.is_some_and(|is| is.metadata() == wanted.metadata());
            let at = if let Offset::Offset(offset) = offset { offset.to_string() } else { "no offset".to_owned() };
            (!is_taken).then(|| format!("{} is at {at}", wanted.partition()))
        })
        .collect();
    if not_taken.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} partitions did not take the new offset, or somebody has committed since: partition {}",
        not_taken.len(),
        set.count(),
        not_taken.join(", partition ")
    )
}

/// The partitions of `topic` in a member's assignment: version, then topics with their partitions
/// (<https://kafka.apache.org/protocol>, ConsumerProtocolAssignment).
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    struct Reader<'a>(&'a [u8]);
    impl<'a> Reader<'a> {
        fn take(&mut self, count: usize) -> Option<&'a [u8]> {
            let (taken, rest) = self.0.split_at_checked(count)?;
            self.0 = rest;
            Some(taken)
        }
        fn short(&mut self) -> Option<i16> {
            Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
        }
        fn int(&mut self) -> Option<i32> {
            Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
        }
    }
    let mut reader = Reader(bytes);
    let _version = reader.short()?;
    let mut found = Vec::new();
    for _ in 0..reader.int()? {
        let length = usize::try_from(reader.short()?).ok()?;
        let is_ours = reader.take(length)? == topic.as_bytes();
        for _ in 0..reader.int()? {
            let partition = reader.int()?;
            if is_ours {
                found.push(partition);
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_partition_that_did_not_take_its_offset_is_named() {
        let list = |offsets: &[(i32, Option<i64>, &str)]| {
            let mut list = TopicPartitionList::new();
            for &(partition, offset, metadata) in offsets {
                list.add_partition_offset("t", partition, offset.map_or(Offset::Invalid, Offset::Offset)).unwrap();
                list.find_partition("t", partition).unwrap().set_metadata(metadata);
            }
            list
        };
        let wanted =
            list(&[(0, Some(5), "set=9"), (1, Some(6), "set=9"), (2, Some(7), "set=9"), (3, Some(8), "set=9")]);
        assert!(all_taken("t", &wanted, &wanted).is_ok());
        let found = list(&[(0, Some(5), "set=9"), (1, Some(9), "set=9"), (2, None, ""), (3, Some(8), "topic-id=1")]);
        let error = all_taken("t", &wanted, &found).unwrap_err().to_string();
        assert!(error.starts_with("3 of 4 partitions did not take the new offset"), "{error}");
        assert!(error.ends_with(": partition 1 is at 9, partition 2 is at no offset, partition 3 is at 8"), "{error}");
        assert!(all_taken("t", &wanted, &list(&[])).is_err(), "an answer that says nothing");
    }

    #[test]
    fn assignments_are_read_and_cut_ones_are_not() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (topic, partitions) in [("other", &[9][..]), ("t", &[0, 3][..])] {
            bytes.extend((topic.len() as i16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|partition: &i32| bytes.extend(partition.to_be_bytes()));
        }
        assert_eq!(assigned(&bytes, "t"), Some(vec![0, 3]));
        assert_eq!(assigned(&bytes[..bytes.len() - 1], "t"), None);
        assert_eq!(assigned(&[], "t"), None);
    }
}
