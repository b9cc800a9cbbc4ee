"""A provider to order: speaks every dialect, and fails in every way on request.

  faults      the grammar: `cut=3 pace=50` -> Faults; read it first, its docstring is the manual
  speech      an asked path and body -> the answer a real provider would give (Ask, Answer, Part)
  voices      one class per dialect: its events, its whole answers, its errors, with usage
  voices_openai   the same for the OpenAI family
  coding      compressors, flushed event by event
  books       what each answer reported as usage, how much of it went out, how it ended
  replay      recorded answers from a folder with a manifest; cuts of bytes into pieces
  script      Answer + Faults -> the steps to carry out; pure, every fault is decided here
  seen        SeenRequest: what came in, kept within bounds
  line        Line: bytes to and from one client; the one place that writes wrong HTTP
  provider    Simulator: listener and connections (h11)

For users who test their agents' failure paths, for `demo`, and the upstream of our tests. Imports only wire, dialects
and outcome; only cli imports it. It reads requests with code of its own, so that a misreading cannot hide in both.
"""
