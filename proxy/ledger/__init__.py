"""What was spent? One row for each exchange, in a SQLite file that anybody may query.

  schema       the tables' columns, which files we take, LedgerUnusable; a file that is current costs one PRAGMA
  migrations   how a file gets these tables; imports sqlite-utils, so it is imported only where something is to be made
  rows         Receipt -> rows, and rows into the tables
  spill        Journal: receipts that the database could not take, as checked lines in a file beside it
  run          RunFile: one process per ledger, and how many receipts it took, readable after kill -9
  records      the file of counters and holds: its form, reading it, replacing it, mapping it
  counters     Counters: how much of each limit and budget is used, readable after kill -9; bump says that keys changed
  losses       receipts that are gone: counted where a kill cannot reach, and told
  retention    old rows out, in small steps
  book         Book: all files of a ledger, open for writing; nothing is written twice, and what is missing is counted
  naps         Naps: when that thread lets the event loop go first
  writer       Ledger: the sink; a bounded queue and the one thread that writes
  reader       LedgerReader: questions, through connections that cannot write, with a time limit
  spent        what to ask where sums are by provider or model, and an exchange was at several
  keys         KeyStore: keys given to clients, their groups, what killed processes had reserved
  models       ModelStore: aliases that were stored
  period       moments in words: today, 7d, 2026-11-01
  audit        is a ledger whole?

Knows only `outcome`. No content is ever stored: names, numbers and times; of a key its digest.
"""
