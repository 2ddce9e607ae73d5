-- Who works with the trail. The roles are made by `auditstream migrate`; the users are yours.
CREATE USER IF NOT EXISTS audit_worker IDENTIFIED BY {password:String};
GRANT audit_ingest TO audit_worker;
ALTER USER audit_worker DEFAULT ROLE audit_ingest SETTINGS PROFILE 'audit_ingest';
CREATE USER IF NOT EXISTS audit_reader IDENTIFIED BY {password:String};
GRANT audit_analyst TO audit_reader;
ALTER USER audit_reader DEFAULT ROLE audit_analyst SETTINGS PROFILE 'audit_analyst';
