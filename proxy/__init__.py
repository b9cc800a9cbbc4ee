"""llm-proxy: a sidecar between applications and LLM providers.

The rooms, from the bottom up; each imports only what stands above it in this list.

  outcome     the words for how things end: Side, Phase, Limit, Kind, Failure, Usage, Receipt
  wire/       what are these bytes      HTTP/1.1 heads, bodies, chunks, event boundaries
  dialects/   what do they mean         what is asked in a body, how an answer ends, how an error looks
  catalog/    which names exist         providers and their credentials, aliases, prices, frozen
  policy/     may it, where, again      keys, limits, routes, plans; breakers, retries
  relay/      move it                   client connection, exchange, attempts, upstream connection, pool, deadlines
  tokens/     how many tokens is it     counting in a process of its own, where nobody reported
  ledger/     what was spent            one row for each exchange, in SQLite
  telemetry/  how is it going           access log
  admin/      show it                   health and readiness on a listener of their own
  simulator/  a provider to order       for demo, tests, and users' own failure drills
  accounts/   what was spent, in words  the commands usage, tail, prices, ledger
  server/     run it                    settings, worker; the only room that knows all others

The first five decide: no sockets, no clock, no files; `now` is passed in. The rest does input and output.
One request: relay.client -> wire.requests -> policy (key, route) -> dialects (call) -> policy (plan, limits) ->
relay.attempts -> relay.attempt -> relay.pool -> relay.upstream -> wire.responses -> relay.attempt -> back to the client
in the same call stack -> relay.exchange -> relay.booking -> Receipt -> sinks.
"""

__version__ = "0.1.0"
