//! The words of the generated load: a shop's services with their entities and actions.

/// One thing that a service does.
pub(super) struct Deed {
    pub(super) action: &'static str,
    /// How often, beside the other deeds of its service.
    pub(super) weight: u64,
    pub(super) method: &'static str,
    /// Of 1000 tries, how many fail and how many are refused.
    pub(super) failures: u64,
    pub(super) denials: u64,
    /// What changes, and the values that it takes; a path without values is an amount of money.
    pub(super) changes: &'static [(&'static str, &'static [&'static str])],
}

/// One service and the entities that it owns.
pub(super) struct Area {
    pub(super) service: &'static str,
    pub(super) entity_type: &'static str,
    /// In front of an entity's number.
    pub(super) prefix: &'static str,
    /// In front of the entity's id in the HTTP path.
    pub(super) path: &'static str,
    /// The error of a failure.
    pub(super) error: &'static str,
    pub(super) deeds: &'static [Deed],
}

const fn deed(
    action: &'static str,
    weight: u64,
    method: &'static str,
    (failures, denials): (u64, u64),
    changes: &'static [(&'static str, &'static [&'static str])],
) -> Deed {
    Deed { action, weight, method, failures, denials, changes }
}

const ORDER_STATES: &[&str] = &["\"open\"", "\"paid\"", "\"packed\"", "\"shipped\"", "\"returned\""];
const MONEY: &[&str] = &[];
const ROLES: &[&str] = &["\"viewer\"", "\"editor\"", "\"owner\"", "\"auditor\""];
const FLAGS: &[&str] = &["true", "false"];
const DAYS: &[&str] = &["7", "14", "30", "60", "90"];

/// All services. The first ones are asked for most often.
pub(super) const AREAS: &[Area] = &[
    Area {
        service: "order-service",
        entity_type: "order",
        prefix: "o-",
        path: "/v2/orders/",
        error: "stock was taken by another order",
        deeds: &[
            deed("order.create", 30, "POST", (12, 2), &[("/status", ORDER_STATES), ("/total", MONEY)]),
            deed("order.update", 55, "PATCH", (10, 3), &[("/status", ORDER_STATES), ("/total", MONEY)]),
            deed("order.delete", 3, "DELETE", (5, 60), &[("/status", ORDER_STATES)]),
            deed("order.export", 2, "GET", (8, 40), &[]),
        ],
    },
    Area {
        service: "identity-service",
        entity_type: "account",
        prefix: "a-",
        path: "/v1/accounts/",
        error: "wrong password",
        deeds: &[
            deed("account.login", 70, "POST", (90, 15), &[]),
            deed("account.logout", 20, "POST", (0, 0), &[]),
            deed("account.password_change", 4, "PUT", (60, 5), &[("/password_expires_in_days", DAYS)]),
            deed("account.update", 6, "PATCH", (10, 10), &[("/mfa", FLAGS), ("/locked", FLAGS)]),
        ],
    },
    Area {
        service: "payment-service",
        entity_type: "payment",
        prefix: "p-",
        path: "/v1/payments/",
        error: "the card was declined",
        deeds: &[
            deed("payment.create", 50, "POST", (25, 3), &[("/amount", MONEY), ("/captured", FLAGS)]),
            deed("payment.capture", 40, "POST", (55, 2), &[("/captured", FLAGS), ("/amount", MONEY)]),
            deed("payment.refund", 10, "POST", (20, 45), &[("/amount", MONEY)]),
        ],
    },
    Area {
        service: "catalog-service",
        entity_type: "product",
        prefix: "sku-",
        path: "/v3/products/",
        error: "another edit came first",
        deeds: &[
            deed("product.update", 80, "PATCH", (15, 4), &[("/price", MONEY), ("/listed", FLAGS)]),
            deed("product.bulk_update", 15, "POST", (30, 5), &[("/price", MONEY), ("/tax", MONEY), ("/listed", FLAGS)]),
            deed("product.import", 5, "POST", (80, 10), &[]),
        ],
    },
    Area {
        service: "document-service",
        entity_type: "document",
        prefix: "d-",
        path: "/v1/documents/",
        error: "the document is locked",
        deeds: &[
            deed("document.read", 70, "GET", (2, 30), &[]),
            deed("document.update", 25, "PUT", (20, 25), &[("/retention_days", DAYS), ("/public", FLAGS)]),
            deed("document.delete", 5, "DELETE", (10, 90), &[("/public", FLAGS)]),
        ],
    },
    Area {
        service: "access-service",
        entity_type: "grant",
        prefix: "g-",
        path: "/v1/grants/",
        error: "the role does not exist",
        deeds: &[
            deed("grant.create", 45, "POST", (10, 70), &[("/role", ROLES), ("/expires_in_days", DAYS)]),
            deed("grant.update", 40, "PATCH", (10, 50), &[("/role", ROLES)]),
            deed("grant.delete", 15, "DELETE", (5, 20), &[("/role", ROLES)]),
        ],
    },
];

/// People's names; every pair of two is somebody.
pub(super) const FIRST_NAMES: &[&str] = &[
    "Ada", "Béla", "Chidi", "Dana", "Emre", "Fatou", "Grete", "Hana", "Ivo", "Jorge", "Katya", "Linh", "Mira", "Noor",
    "Ola", "Paul",
];
/// See [`FIRST_NAMES`].
pub(super) const LAST_NAMES: &[&str] = &[
    "Arslan",
    "Brandt",
    "Costa",
    "Diallo",
    "Engel",
    "Ferrari",
    "Garcia",
    "Hansen",
    "Ito",
    "Jensen",
    "Kaya",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
];

/// Share of the day's events in each hour, UTC: an office day.
pub(super) const HOURS: [u64; 24] =
    [4, 3, 3, 3, 4, 6, 10, 18, 32, 42, 46, 44, 36, 42, 46, 45, 40, 32, 22, 16, 12, 9, 7, 5];
