"""The suite. A package by name, so that `from tests.fakes...` means this folder whatever else is installed.

<room>/      test_<module>.py beside each module of proxy/<room>/
whole/       real processes, sockets and SDKs            adversity/   links that stall, cut, trickle
fuzz/        hypothesis, with h11 as second opinion      rules/       what reading the files can check
scripts/     the set-up commands                         fakes/       named for what they imitate

`scripts/test` runs all of it, `scripts/test -m 'not slow'` the quick part, `scripts/test tests/wire -k chunk` a piece.
"""
