"""Run it: the only room that knows all others.

  addresses   Address: where a listener binds, out of text
  table       SETTINGS: every variable of ours with default, unit and meaning; what README, --help and parsing share
  settings    read_settings: environment -> Settings, all errors at once; the only reader of the environment
  values      text of variables -> sizes, policies
  contradictions   what each part of a configuration allows and the whole does not
  files       what settings read from files: secrets, prices
  calendar    when the hours, days, weeks and months of budgets end
  clearing    a second start of the process, in an environment without secrets
  certificates   TLS with clients, and whether certificate files can be used
  keys        StoredKeys: the keys in the ledger, always as they are now
  models      StoredModels: the aliases in the ledger, over those of the environment
  lost        LostRequests: what kills left reserved, kept, told, and given back when it is settled
  admin       what the admin listener serves, made of what the worker has
  report      what a configuration means, as a document and as text, free of secrets
  reload      the configuration read again while everything runs, in force at once or not at all
  sockets     sockets to listen on
  worker      Worker: listeners, relay, sinks; start and stop

May not live here: anything that moves request bytes (relay), anything that decides about a request (policy).
"""
