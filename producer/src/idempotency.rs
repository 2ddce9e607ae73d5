//! The id of an event that has an idempotency key: the same key gives the same id, in every process and in every language with UUIDv5.

use uuid::Uuid;

/// `6ba7b812-…`, RFC 9562's namespace for object identifiers, would be anybody's; this one is auditstream's own and never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f0e_63c1_52a4_4f6b_9d3e_a1d5_7e02_c94b);

/// UUIDv5 of the tenant and the key, with a zero byte between them (a tenant's id has none). Two tenants may use the same key.
#[must_use]
pub fn idempotent_event_id(tenant_id: &str, key: &str) -> Uuid {
    let mut name = Vec::with_capacity(tenant_id.len() + 1 + key.len());
    name.extend_from_slice(tenant_id.as_bytes());
    name.push(0);
    name.extend_from_slice(key.as_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_one_id_and_tenants_apart() {
        let id = idempotent_event_id("acme", "payment-17");
        assert_eq!(id.get_version_num(), 5);
        // Written down: another value would let events of an older version in twice.
        assert_eq!(id.to_string(), "fbd2392c-8a4f-5327-b385-59443df1a42e");
        assert_eq!(id, idempotent_event_id("acme", "payment-17"));
        assert_ne!(id, idempotent_event_id("globex", "payment-17"));
        assert_ne!(idempotent_event_id("a", "bc"), idempotent_event_id("ab", "c"));
    }
}
