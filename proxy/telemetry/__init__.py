"""How is it going? What operators see while the process runs.

  lines        Receipt or note -> one line of JSON or text; nothing in it can forge another line
  access_log   AccessLog: a sink for receipts that never waits; a thread writes, and counts what had to be dropped
  sampler      Sampler: a sink before the others that hands refusals on at a rate, and counts those it leaves out
  frequent     Frequent: which names come most often, in bounded memory

Knows only `outcome`. Metrics and live events come beside these.
"""
