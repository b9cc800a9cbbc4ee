"""Failures that the tests of all dialects put into their formats."""

from __future__ import annotations

from proxy.outcome import Failure, Kind, Phase, Side

STALLED = Failure(Side.UPSTREAM, Phase.STREAM, Kind.TIMEOUT, 'the provider said "nothing"\n for 300 s \u00e9')
REFUSED = Failure(Side.CLIENT, Phase.BODY, Kind.UNREADABLE_BODY)
STATUSES = (400, 401, 403, 404, 405, 408, 413, 414, 417, 429, 431, 500, 501, 502, 503, 504, 505, 508)
