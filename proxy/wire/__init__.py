"""What are these bytes? HTTP/1.1 messages and event streams as bytes and values, without any input or output.

  head        RequestHead, ResponseHead, Framing; which fields travel and which end here
  requests    RequestParser: bytes of a client -> head, body pieces, end, or a Failure
  target      place: host, path and query that a request line asks for
  chunked     ChunkDecoder: the chunked coding of requests
  responses   ResponseParser: bytes of an upstream -> head, body pieces, end, or a Failure
  encode      heads and chunks -> bytes
  sse         EventCutter: where events end in a stream of bytes
  inflate     Inflater: what a compressed body says, within bounds

May not live here: sockets, clocks, what a body means. Parsers never raise at hostile bytes: they note a Failure.
"""
