"""Show and steer it: the admin listener, apart from the listener that carries traffic.

  routes    RouteTable, Route: one table of (method, path, handler, needs_token); the probes /healthz and /readyz
  session   AdminSessions: the protocol factory for loop.create_server; HTTP/1.1 by h11, bounded in bytes and time

Nothing here touches relay: what it shows is handed in as callables. Traffic never passes through this room, so
clarity is worth more than speed in it.
"""
