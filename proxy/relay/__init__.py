"""Move it: the only room where request bytes travel.

  relay       Relay: what all connections of one worker share, and the gate that every receipt passes
  client      ClientConnection: bytes of a client in, answers out, in order
  exchange    Exchange: one request with its answer, from head to receipt; ends exactly once
  attempts    Attempts: which target is asked, and what follows if it fails; two at once; carrying on what was cut
  attempt     Attempt: one try at one target: its answer and its end; a stale link replaced
  sending     Sending: the first half of an attempt: a link, and the request on it
  stakes      Stake: what an attempt has to win or lose: limits, a credential, the standing of its target
  held        Held: in the place of the client, while it is not sure that it will get this answer
  resuming    ResumedAnswer: the rest of an answer whose beginning the client has from another attempt
  booking     Booking: what all attempts of an exchange used, on its receipt
  request     Passage: what a request head was granted, and the head that it becomes upstream
  body        RequestBody: held for as long as it may be sent again, or streamed through
  phases      how long each phase may last
  answer      Answer: an upstream's answer on its way to the client: framing, events, the honest ending
  taking      what an exchange takes of its limits; the fields of a refusal that tell when to come again
  waiting     exchanges that wait until a limit lets them pass, and whose turn it is
  masking     our credential in an error that comes compressed, and in receipts
  turns       Turns: clients that sent requests ahead, some of which are begun in each turn of the loop
  metering    Metering: what an exchange used, reported or counted or estimated, and what it costs
  absent      AbsentClient: in the place of a client that has left while its answer is read on
  local       answers of our own: refusals, failures, OPTIONS, lists of models
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
