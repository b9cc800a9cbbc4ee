"""What the sidecar costs, measured beside the others, in one run, on this machine.

  orders        what a request orders from the upstream (in its model name), and the exact bytes it gets
  upstream      the provider: a process that answers such orders with precomputed bytes
  splice        the floor: a process that forwards bytes without looking at them
  client        one connection of the load: asks, checks, takes times
  load          the clients together: closed loop, open loop, paced streams, back-to-back streams, idle streams
  flood         requests with wrong keys, in masses
  contestants   how direct, splice, nginx and llm-proxy are started, asked and stopped
  machine       cores, CPU time and memory of process trees, versions
  scenarios     which load makes which figure
  report        figures of all rounds -> table and JSON
  ledger        what the ledger does to the event loop
  micro         pieces of the straight path on their own
  profile       where the sidecar's time goes

CPU time per unit of work is the figure to trust: throughput and latency depend on who else uses the machine.
Needs Linux. No other part of the project imports this one, and nothing here asserts a threshold.
"""
