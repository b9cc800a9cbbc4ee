"""May it, and where to? Keys, admission and routes: synchronous decisions that return what is to be done.

  keys        KeyRing: a presented key -> its name, by digest; who carries a key in a request, and taking it out
  admission   Admission: head -> Grant or Failure in one step; the guard against web pages; streams per key
  key_fields  what may be said of a key, by options or JSON, and the columns of its row that it means
  rules       what may pass, as people write it: `rpm=60 20usd/month` -> Rules
  demand      what a request may cost at most, and did cost; what a client is told that may not come
  counters    where the numbers of limits are: CounterStore, and one in memory
  limits      Limiter: rates (GCRA), budgets, exchanges at once; all of a request's in one step -> Hold or Refusal
  use         how much of each limit is used now, for whoever looks
  listing     what /v1/models names where that is for us to say: aliases, and what a key was given out for
  router      route: method and path -> Route; plan: Route and Call -> Target (provider, path to send, model to write)
  retry       what a failed attempt means: again, elsewhere, or that is the answer; how long to wait; the retry budget
  breaker     Breaker: whether a target that fails is asked at all
  health      what is known of each target, and which of several equals is asked
  credentials which of a provider's credentials is used

May not live here: sockets, clocks, files, reading bodies (dialects do), which providers exist (catalog).
Refusals are values (`Failure`), never exceptions: whatever bytes a client sends, these functions return.
"""
