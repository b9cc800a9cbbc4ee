"""Show and steer it: the admin listener, apart from the listener that carries traffic.

  routes      RouteTable, Route: one table of (method, path, handler, needs_token); the probes /healthz and /readyz
  members     what a request may say: members of bodies and parameters of queries, read and refused by one list
  session     AdminSessions: the protocol factory for loop.create_server; HTTP/1.1 by h11, bounded in bytes and time
  threads     Threads: few and bounded, for answers that must not stop the loop
  documents   keys, groups and sums as plain values, here and behind `--json` of the commands
  keys        /keys and /groups: as `llm-proxy keys`
  limits      /limits: what is limited, and what is used of it now
  models      /models and /targets: aliases, as `llm-proxy models`, and how their targets stand
  spending    /usage, /exchanges and /lost: questions to the ledger
  reload      /reload: the configuration read again, as by SIGHUP
  openapi     /openapi.json: the document of a table of routes, made of the table

Nothing here touches relay: what it shows is handed in as callables. Traffic never passes through this room, so
clarity is worth more than speed in it.
"""
