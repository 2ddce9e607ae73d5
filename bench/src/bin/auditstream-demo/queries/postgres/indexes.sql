ALTER TABLE audit_events ADD PRIMARY KEY (event_id);
CREATE INDEX by_entity ON audit_events (tenant_id, entity_type, entity_id, occurred_at DESC);
CREATE INDEX by_actor ON audit_events (tenant_id, actor_id, occurred_at DESC);
CREATE INDEX by_action ON audit_events (tenant_id, action, occurred_at);
CREATE INDEX by_correlation ON audit_events (correlation_id);
CREATE INDEX by_request ON audit_events (request_id);
CREATE INDEX by_time ON audit_events (occurred_at);
CREATE INDEX by_word ON audit_events USING gin (to_tsvector('simple', details))
