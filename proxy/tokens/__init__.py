"""How many tokens is a text? Counting where no provider reported any, in a process of its own.

  counter   Counter: hands bytes over and calls back, on the sidecar's loop
  link      Link: that process as the loop sees it: start it, write, read, notice its end
  frames    what the two say to each other, as bytes
  teller    the process: reads events and requests, answers with tokens (python -m proxy.tokens.teller)
  tally     exact counts of text that comes in pieces

The tokenizer's vocabulary makes that process 83 MB large and takes 0.6 s to load, which no thread could do without
holding the loop (DESIGN 7). So it starts at the first need and ends when idle. It counts 36 MB of chat events a second.
May not live here: which text an event holds (dialects), what becomes of a figure (relay).
"""
