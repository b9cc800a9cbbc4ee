"""Move it: the only room where request bytes travel.

  relay       Relay: what all connections of one worker share, and the gate that every receipt passes
  client      ClientConnection: bytes of a client in, answers out, in order
  exchange    Exchange: one request with its answer, from head to receipt; ends exactly once
  attempt     Attempt: one try at one target: a link, the request on it, a stale link replaced
  request     Passage: what a request head was granted, and the head that it becomes upstream
  body        RequestBody: held until it was read, or streamed through
  phases      how long each phase may last
  answer      Answer: an upstream's answer on its way to the client: framing, events, the honest ending
  taking      what an exchange takes of its limits; the fields of a refusal that tell when to come again
  waiting     exchanges that wait until a limit lets them pass, and whose turn it is
  masking     our credential in an error that comes compressed, and in receipts
  turns       Turns: clients that sent requests ahead, some of which are begun in each turn of the loop
  metering    Metering: what an exchange used, reported or counted or estimated, and what it costs
  absent      AbsentClient: in the place of a client that has left while its answer is read on
  local       answers of our own: refusals, failures, OPTIONS
  upstream    UpstreamConnection: one link to a provider
  pool        Pool: idle links for reuse, links in the making, exchanges that wait
  connect     opening a link: names, addresses, proxies, TLS
  deadlines   Deadlines: one sweeper for all time limits
  kernel      what the kernel knows about a client's socket
  hangup      HangupWatch: sees clients leave whose reading is paused
  tasks       Tasks: the one place where tasks are made
  options     seconds, bytes and certificates, with reasons

Data callbacks are plain functions: where nothing has to be waited for, a request goes from the client's socket to the
upstream's in one call stack. Receipts go to sinks that `server` plugs in; nobody who records is known here.
"""
