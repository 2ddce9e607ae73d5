"""Asks questions as an analyst, with ClickHouse's own client for Python: one JSON list of rows a question. Arguments: URL, database, questions."""

import json
import os
import ssl
import sys
import types
from urllib.parse import urlsplit

# The client imports it for TLS, which is not spoken here; the system's certificates stand in.
certifi = types.ModuleType("certifi")
certifi.where = lambda: ssl.get_default_verify_paths().cafile
sys.modules.setdefault("certifi", certifi)

import clickhouse_connect  # noqa: E402

url, database, *questions = sys.argv[1:]
address = urlsplit(url)
client = clickhouse_connect.get_client(
    host=address.hostname,
    port=address.port,
    username=os.environ["CLICKHOUSE_USER"],
    password=os.environ["CLICKHOUSE_PASSWORD"],
    database=database,
)
for question in questions:
    rows = client.query(question, parameters={"tenant": "acme", "id": "o-42"}).result_rows
    print(json.dumps(rows, default=str))
