"""What the sidecar costs, measured beside the others, in one run, on this machine.

  orders        what a request orders from the upstream (in its model name), and the exact bytes it gets
  upstream      the provider: a process that answers such orders with precomputed bytes
  splice        the floor: a process that forwards bytes without looking at them
  client        one connection of the load: asks, checks, takes times
  load          the clients together: closed loop, open loop, paced streams, back-to-back streams, idle streams
  timer         a timer that is fine enough to plan single events by
  flood         requests with wrong keys, in masses
  slow          clients that hardly read
  probe         a trivial question, again and again: how long an event loop takes to come round
  arena         the processes of a run: how contestants are started, with TLS and without, and stopped
  contestants   who is measured
  servers       nginx and HAProxy
  sidecar       llm-proxy, with everything on, and with one thing less at a time
  machine       cores, CPU time and memory of process trees, versions
  setting       what every scenario works with: sizes, one contestant before the upstream, figures of a sample
  unary         scenarios of single answers
  streams       scenarios of streams
  siege         scenarios in which something else goes on meanwhile
  scenarios     all of them by name, and in which order
  peers         other proxies and gateways, from a table (peers.toml): installed, started, asked
  options       the command line
  parts         the runs that make up the report
  results       figures of all rounds: medians, spreads, ratios, what was disturbed
  goals         what is aimed at, and whether it was reached
  compare       do two runs agree?
  record        a whole run as JSON, and back
  table         figures as text
  charts        bars, ranges and lines as SVG; pictures: which of them a report has
  markdown      the report
  ledger        what the ledger does to the event loop
  micro         pieces of the straight path on their own
  stage         the straight path in one process, without sockets
  straight      what it takes there: time, Python frames, memory that is kept
  instructions  the same in instructions, to compare two versions on a noisy machine
  profile       where the sidecar's time goes

CPU time per unit of work is the figure to trust: throughput and latency depend on who else uses the machine.
Needs Linux. No other part of the project imports this one, and nothing here asserts a threshold.
"""
