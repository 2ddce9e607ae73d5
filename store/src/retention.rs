//! How long rows are kept: rules by tenant or class, as text that people write, and the table's TTL that they become. Pure; `holds.rs` has the calls.
//!
//! A rule is conditions and a number of days, such as `tenant=acme operation=READ days=90`; rules are divided by `;`, and of an event the first one
//! counts whose conditions it meets. `days=0` is for ever. What no rule speaks of is kept for the default.
//!
//! The days count from `received_at`, the time at which Kafka took the event: a service's clock can't shorten them. Copies of one event that are not
//! merged yet have each their own `received_at`, so the last of them goes a little later than the first; at no time is one event two rows under FINAL.

use std::fmt;
use std::str::FromStr;

use crate::client::quoted;

/// The most days: 30 years. Times in ClickHouse's TTL end in 2106.
pub const MOST_DAYS: u32 = 10_950;
/// The most rules.
const MOST_RULES: usize = 100;

/// What is kept how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// In order; the first one whose conditions an event meets counts.
    pub rules: Rules,
    /// Days for which events are kept that no rule speaks of; 0: for ever.
    pub default_days: u32,
    /// Days for which dead letters are kept; 0: for ever. While any hold is set they all stay.
    pub dead_letter_days: u32,
}

/// Rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Name of the field and its value.
    conditions: Vec<(&'static str, String)>,
    days: u32,
}

/// Fields that rules speak of, and their columns.
const FIELDS: [(&str, &str); 8] = [
    ("tenant", "tenant_id"),
    ("type", "entity_type"),
    ("action", "action"),
    ("operation", "operation"),
    ("outcome", "outcome"),
    ("priority", "priority"),
    ("service", "service"),
    ("environment", "environment"),
];

/// What is wrong with the text of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: {problem}")]
pub struct RuleError {
    /// Which rule, from 1.
    pub rule: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// What a hold keeps: a tenant's events, of one kind of entity or of one entity if that is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldScope {
    /// The tenant.
    pub tenant_id: String,
    /// The kind of entity; empty for every kind.
    pub entity_type: String,
    /// The entity; empty for every one.
    pub entity_id: String,
}

impl HoldScope {
    /// The condition for its rows.
    pub(crate) fn condition(&self) -> String {
        let mut condition = format!("tenant_id = {}", quoted(&self.tenant_id));
        for (column, value) in [("entity_type", &self.entity_type), ("entity_id", &self.entity_id)] {
            if !value.is_empty() {
                condition.push_str(&format!(" AND {column} = {}", quoted(value)));
            }
        }
        condition
    }
}

impl fmt::Display for HoldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tenant_id)?;
        for part in [&self.entity_type, &self.entity_id] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

/// The condition for rows of any of these holds; `None` without one.
pub(crate) fn held(holds: &[HoldScope]) -> Option<String> {
    let each: Vec<_> = holds.iter().map(|hold| format!("({})", hold.condition())).collect();
    (!each.is_empty()).then(|| each.join(" OR "))
}

/// Rows that go after so many days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The rule as text, or `everything else`.
    pub name: String,
    /// Days; 0 for ever.
    pub days: u32,
    /// The condition that its rows meet and no earlier class's; empty for all rows.
    pub(crate) condition: String,
}

impl Class {
    /// The time after which a row goes, as an expression on its columns. Times beyond 2070 count as 2070, so that no sum leaves ClickHouse's range.
    pub(crate) fn expiry(&self) -> String {
        expiry("received_at", self.days)
    }
}

fn expiry(column: &str, days: u32) -> String {
    format!("toDateTime(least({column}, toDateTime64('2070-01-01 00:00:00', 3, 'UTC'))) + toIntervalDay({days})")
}

impl Retention {
    /// Every class in order, the default last.
    #[must_use]
    pub fn classes(&self) -> Vec<Class> {
        let mut earlier: Vec<String> = Vec::new();
        let mut classes = Vec::new();
        for rule in &self.rules.0 {
            let own = rule.condition();
            let condition = std::iter::once(own.clone()).chain(earlier.iter().map(|sql| format!("NOT ({sql})")));
            let condition = condition.collect::<Vec<_>>().join(" AND ");
            classes.push(Class { name: rule.to_string(), days: rule.days, condition });
            earlier.push(own);
        }
        let condition = earlier.iter().map(|sql| format!("NOT ({sql})")).collect::<Vec<_>>().join(" AND ");
        classes.push(Class { name: "everything else".to_owned(), days: self.default_days, condition });
        classes
    }

    /// The TTL of the table of events; `None`: everything stays.
    #[must_use]
    pub fn ttl(&self, holds: &[HoldScope]) -> Option<String> {
        let held = held(holds);
        let one = |class: Class| {
            let condition = [
                Some(class.condition.clone()).filter(|sql| !sql.is_empty()),
                held.as_ref().map(|sql| format!("NOT ({sql})")),
            ];
            let condition = condition.into_iter().flatten().collect::<Vec<_>>().join(" AND ");
            let condition = if condition.is_empty() { condition } else { format!(" WHERE {condition}") };
            format!("{} DELETE{condition}", class.expiry())
        };
        let all: Vec<_> = self.classes().into_iter().filter(|class| class.days > 0).map(one).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The TTL of the table of dead letters; `None`: everything stays. Whose they are is not certain, so any hold keeps them all.
    #[must_use]
    pub fn dead_letter_ttl(&self, holds: &[HoldScope]) -> Option<String> {
        (self.dead_letter_days > 0 && holds.is_empty())
            .then(|| format!("{} DELETE", expiry("timestamp", self.dead_letter_days)))
    }
}

impl Rules {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    fn condition(&self) -> String {
        let each = self.conditions.iter().map(|(field, value)| {
            let column = FIELDS.iter().find(|(name, _)| name == field).map_or(*field, |(_, column)| *column);
            format!("{column} = {}", quoted(value))
        });
        each.collect::<Vec<_>>().join(" AND ")
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.0.iter().enumerate() {
            write!(f, "{}{rule}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, value) in &self.conditions {
            let is_plain = !value.contains([' ', ';', '\t']);
            if is_plain { write!(f, "{field}={value} ")? } else { write!(f, "{field}=\"{value}\" ")? }
        }
        write!(f, "days={}", self.days)
    }
}

impl FromStr for Rules {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut rules = Vec::new();
        for (index, text) in split(text, ';').into_iter().enumerate() {
            let error = |problem: String| RuleError { rule: index + 1, problem };
            if text.trim().is_empty() {
                continue;
            }
            let (mut conditions, mut days) = (Vec::new(), None);
            for word in split(text, ' ').into_iter().filter(|word| !word.trim().is_empty()) {
                let Some((field, value)) = word.trim().split_once('=') else {
                    return Err(error(format!("{:?} is no condition: write field=value", word.trim())));
                };
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
                if field == "days" {
                    let number = value.parse().ok().filter(|number| *number <= MOST_DAYS);
                    let number = number.ok_or_else(|| error(format!("days must be 0 (for ever) to {MOST_DAYS}")))?;
                    if days.replace(number).is_some() {
                        return Err(error("days is there twice".to_owned()));
                    }
                    continue;
                }
                let Some((known, _)) = FIELDS.iter().find(|(name, _)| *name == field) else {
                    let names = FIELDS.map(|(name, _)| name).join(", ");
                    return Err(error(format!("there is no field {field:?}: {names}, or days")));
                };
                if value.is_empty() || value.contains(['"', '\0']) {
                    return Err(error(format!("the value of {field} must be text, without quotes in it")));
                }
                conditions.push((*known, value.to_owned()));
            }
            let days = days.ok_or_else(|| error("days is missing".to_owned()))?;
            if conditions.is_empty() {
                return Err(error("it has no condition: what holds for all is retention.default_days".to_owned()));
            }
            rules.push(Rule { conditions, days });
            if rules.len() > MOST_RULES {
                return Err(error(format!("there are more than {MOST_RULES} rules")));
            }
        }
        Ok(Self(rules))
    }
}

/// What `separator` divides outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|letter: char| {
        is_quoted ^= letter == '"';
        letter == separator && !is_quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn retention(rules: &str, default_days: u32, dead_letter_days: u32) -> Retention {
        Retention { rules: rules.parse().unwrap(), default_days, dead_letter_days }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let plan =
            retention("tenant=acme operation=READ days=90; tenant=\"o'x; y\" days=0;type=session days=7", 365, 30);
        assert_eq!(
            plan.rules.to_string(),
            "tenant=acme operation=READ days=90; tenant=\"o'x; y\" days=0; type=session days=7"
        );
        assert_eq!(plan.rules.to_string().parse::<Rules>().unwrap(), plan.rules);
        let time = "toDateTime(least(received_at, toDateTime64('2070-01-01 00:00:00', 3, 'UTC')))";
        let (first, second, third) =
            ("tenant_id = 'acme' AND operation = 'READ'", r"tenant_id = 'o\'x; y'", "entity_type = 'session'");
        assert_eq!(
            plan.ttl(&[]).unwrap(),
            format!(
                "{time} + toIntervalDay(90) DELETE WHERE {first}, \
                 {time} + toIntervalDay(7) DELETE WHERE {third} AND NOT ({first}) AND NOT ({second}), \
                 {time} + toIntervalDay(365) DELETE WHERE NOT ({first}) AND NOT ({second}) AND NOT ({third})"
            )
        );
        assert_eq!(
            plan.dead_letter_ttl(&[]).unwrap(),
            "toDateTime(least(timestamp, toDateTime64('2070-01-01 00:00:00', 3, 'UTC'))) + toIntervalDay(30) DELETE"
        );
    }

    #[test]
    fn a_hold_is_stronger_than_every_rule() {
        let hold = |tenant: &str, kind: &str, id: &str| HoldScope {
            tenant_id: tenant.to_owned(),
            entity_type: kind.to_owned(),
            entity_id: id.to_owned(),
        };
        let holds = [hold("a", "", ""), hold("b", "order", "1'")];
        assert_eq!(holds.each_ref().map(ToString::to_string), ["a", "b/order/1'"]);
        let ttl = retention("", 10, 10).ttl(&holds).unwrap();
        assert!(ttl.ends_with(r" DELETE WHERE NOT ((tenant_id = 'a') OR (tenant_id = 'b' AND entity_type = 'order' AND entity_id = '1\''))"), "{ttl}");
        assert_eq!(retention("", 10, 10).dead_letter_ttl(&holds), None);
        assert_eq!(retention("tenant=a days=0", 0, 0).ttl(&holds), None);
        assert!(retention("", 10, 0).ttl(&[]).unwrap().ends_with("+ toIntervalDay(10) DELETE"));
    }

    #[test]
    fn wrong_rules_are_named() {
        for (text, expected) in [
            ("tenant=a", "rule 1: days is missing"),
            ("days=5", "rule 1: it has no condition"),
            ("tenant=a days=1; colour=x days=2", "rule 2: there is no field \"colour\""),
            ("tenant=a days=-1", "rule 1: days must be"),
            ("tenant=a days=10951", "rule 1: days must be"),
            ("tenant=a days=1 days=2", "rule 1: days is there twice"),
            ("tenant= days=1", "rule 1: the value of tenant"),
            ("acme days=1", "rule 1: \"acme\" is no condition"),
        ] {
            let error = text.parse::<Rules>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!("".parse::<Rules>().unwrap().is_empty());
    }
}
