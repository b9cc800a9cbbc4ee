"""How a file becomes a ledger, and an older ledger a current one.

Lives here: the migrations, in order; each is history and is never edited once it was released.
May not live here: anything that runs at each start; schema imports this module only for a file that is not current.
How it works: sqlite-utils runs each migration in one transaction with its record in `_sqlite_migrations`; the last
statement of each sets `user_version`, in the same transaction. The comments stay in the file: a user who asks for
`.schema` reads them.
Doubted: plain SQL instead of sqlite-utils' tables of types, for the sake of those comments.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from proxy.ledger import schema

migrations = Migrations("llm-proxy")


def apply(connection: sqlite3.Connection) -> None:
    """Run what is pending. The connection is in autocommit mode. Raises sqlite3.Error; each migration runs or does not.

    A new file gets its `application_id` first, so that one left half-made by a kill is still known as ours.
    """
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    migrations.apply(Database(connection, recursive_triggers=False, execute_plugins=False))


@migrations()
def first_tables(db: Database) -> None:
    # Statement by statement: executescript would commit, and the record would no longer be in the same transaction.
    db.execute(
        """
CREATE TABLE exchanges (
  id TEXT NOT NULL UNIQUE,       -- <run>-<number>, also in the log
  run TEXT NOT NULL,             -- runs.id
  started_at REAL NOT NULL,      -- seconds since 1970 (UTC): datetime(started_at, 'unixepoch')
  key TEXT,                      -- the name of the client's key
  alias TEXT,
  provider TEXT,
  model_requested TEXT,
  model_served TEXT,
  dialect TEXT,
  method TEXT,
  path TEXT,
  stream INTEGER,                -- 0, 1
  status INTEGER,                -- what the client was sent; 0: nothing
  ended_by TEXT,                 -- client, upstream, proxy
  ended_phase TEXT,
  ended_kind TEXT,               -- complete, or why not
  detail TEXT,
  complete INTEGER,              -- 0, 1
  usage_source TEXT,             -- the weaker of the next two: reported, counted, estimated, none
  input_source TEXT,
  output_source TEXT,
  usage_complete INTEGER,        -- 1: both figures are final; NULL: there was nothing to count
  input_tokens INTEGER,          -- all input, cached tokens and cache writes included
  output_tokens INTEGER,         -- all output, reasoning included
  cached_tokens INTEGER,         -- part of input_tokens
  cache_write_tokens INTEGER,    -- part of input_tokens
  cache_write_1h_tokens INTEGER, -- part of cache_write_tokens
  reasoning_tokens INTEGER,      -- part of output_tokens
  searches INTEGER,
  counted_input_tokens INTEGER,  -- by our tokenizer, whatever was reported
  counted_output_tokens INTEGER,
  cost_micros INTEGER,           -- millionths of a dollar, by our prices; NULL: no price is known
  reported_cost_micros INTEGER,  -- as the provider itself says
  price_version TEXT,
  attempts INTEGER,              -- how many; each has a row in attempts
  events INTEGER,
  bytes_in INTEGER,
  bytes_out INTEGER,
  body_ms REAL,                  -- milliseconds since the first byte of the request, but for:
  queue_ms REAL,                 -- a duration
  connect_ms REAL,               -- a duration
  sent_ms REAL,
  first_byte_ms REAL,
  first_event_ms REAL,
  total_ms REAL,
  provider_request_id TEXT,
  client TEXT,
  tags TEXT                      -- what the client sent as x-llm-proxy-tags
)"""
    )
    db.execute("CREATE INDEX exchanges_started_at ON exchanges (started_at)")
    # Without a rowid the key is the table, and no second copy of exchange_id is kept in an index.
    db.execute(
        """
CREATE TABLE attempts (
  exchange_id TEXT NOT NULL,
  number INTEGER NOT NULL,       -- from 1
  provider TEXT,
  model TEXT,
  started_ms REAL,               -- milliseconds since the exchange began
  ended_ms REAL,
  reused INTEGER,                -- 1: on a connection from the pool
  status INTEGER,                -- 0: no answer
  ended_by TEXT,                 -- this and the next three are NULL if it went well
  ended_phase TEXT,
  ended_kind TEXT,
  detail TEXT,
  PRIMARY KEY (exchange_id, number)
) WITHOUT ROWID"""
    )
    db.execute(
        """
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  started_at REAL,               -- seconds since 1970
  ended_at REAL,                 -- NULL while it runs, and after a kill
  pid INTEGER,
  version TEXT,
  observed INTEGER,              -- receipts taken
  written INTEGER,               -- rows made of them, pruned ones included
  lost INTEGER                   -- receipts without a row; NULL: not known yet
)"""
    )
    db.execute("PRAGMA user_version = 1")


@migrations()
def keys(db: Database) -> None:
    # Not NULL and unique: a value or a user id that meant two keys would mean neither.
    db.execute(
        """
CREATE TABLE keys (
  name TEXT NOT NULL PRIMARY KEY,
  digest TEXT UNIQUE,            -- SHA-256 of its value, hexadecimal; NULL: it has none, and is known by its uid
  prefix TEXT,                   -- how the value begins, for people
  old_digest TEXT UNIQUE,        -- the value before the last rotation, valid until old_until
  old_prefix TEXT,
  old_until REAL,                -- this and the other times: seconds since 1970 (UTC)
  owner TEXT,
  tags TEXT,                     -- separated by commas
  key_group TEXT,                -- key_groups.name, whose limits it shares
  models TEXT,                   -- patterns of models and aliases, separated by blanks; * is anything; NULL: all
  providers TEXT,                -- names, separated by blanks; NULL: all
  limits TEXT NOT NULL DEFAULT '', -- limits and budgets: rpm=60 20usd/month
  disconnect TEXT,               -- when its client leaves: cancel, drain, drain:<seconds>; NULL: as for all
  raw INTEGER,                   -- 1: may use paths that are not read; 0: may not; NULL: unless it has limits
  uid INTEGER UNIQUE,            -- user at the other end of a Unix socket, who needs no value
  expires_at REAL,
  disabled INTEGER NOT NULL DEFAULT 0,
  created_at REAL,
  changed_at REAL,
  removed_at REAL,               -- it is no key any more, and its name may be given again
  revision INTEGER NOT NULL      -- of its last change: one count over keys and key_groups
)"""
    )
    db.execute("CREATE INDEX keys_revision ON keys (revision)")
    db.execute("CREATE INDEX keys_key_group ON keys (key_group)")
    db.execute(
        """
CREATE TABLE key_groups (
  name TEXT NOT NULL PRIMARY KEY,
  limits TEXT NOT NULL,          -- of all its keys together
  changed_at REAL,
  removed_at REAL,
  revision INTEGER NOT NULL
)"""
    )
    db.execute("CREATE INDEX key_groups_revision ON key_groups (revision)")
    db.execute(
        """
CREATE TABLE lost_holds (
  id INTEGER PRIMARY KEY,
  key TEXT,                      -- its name
  micros INTEGER,                -- what a request had reserved when its process was killed: millionths of a dollar
  tokens INTEGER,
  started_at REAL,
  found_at REAL,
  settled_at REAL,               -- NULL: nobody knows yet what it really cost, and what was reserved counts
  settled_micros INTEGER,
  settled_tokens INTEGER,
  applied_at REAL                -- budgets have got back what was reserved and not spent
)"""
    )
    # SQLite puts this text before the closing bracket: a comment to the end of the line would swallow that.
    about = "/* requests: a refusal that came in masses also stands for those that have no row of their own */"
    db.execute(f"ALTER TABLE exchanges ADD COLUMN stands_for INTEGER DEFAULT 1 {about}")
    db.execute("PRAGMA user_version = 2")


@migrations()
def attempts_visible(db: Database) -> None:
    # Rows of before stay as they are: a million of them would take a start ten seconds, and the exchange has it all.
    for column, about in (
        (
            "why TEXT",
            "first, stale, retry, fallback, hedge, resume; NULL, as all below, in rows older than this column",
        ),
        ("first_event_ms REAL", "milliseconds since the exchange began"),
        ("usage_source TEXT", "this and the next ones as in exchanges, but of this attempt: all together are its sums"),
        ("input_source TEXT", ""),
        ("output_source TEXT", ""),
        ("usage_complete INTEGER", ""),
        ("input_tokens INTEGER", ""),
        ("output_tokens INTEGER", ""),
        ("cached_tokens INTEGER", ""),
        ("cache_write_tokens INTEGER", ""),
        ("reasoning_tokens INTEGER", ""),
        ("searches INTEGER", ""),
        ("cost_micros INTEGER", ""),
        ("reported_cost_micros INTEGER", ""),
        ("model_served TEXT", ""),
        ("bytes_out INTEGER", "of its answer, to the client"),
    ):
        comment = f" /* {about} */" if about else ""  # not `--`: see stands_for
        db.execute(f"ALTER TABLE attempts ADD COLUMN {column}{comment}")
    db.execute("PRAGMA user_version = 3")


@migrations()
def models(db: Database) -> None:
    db.execute(
        """
CREATE TABLE models (
  name TEXT NOT NULL PRIMARY KEY,
  text TEXT NOT NULL,            -- as in LLM_PROXY_MODELS, before whose aliases it goes: fast (hedge) = openai/gpt-4o
  changed_at REAL,               -- seconds since 1970 (UTC)
  removed_at REAL,               -- it is no alias any more, and its name may be given again
  revision INTEGER NOT NULL      -- of its last change: one count over all aliases
)"""
    )
    db.execute("PRAGMA user_version = 4")
