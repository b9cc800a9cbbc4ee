"""What was spent, who may spend, and where: the commands `usage`, `tail`, `prices`, `ledger`, `keys` and `models`.

  arguments  which commands there are, and what can be said to them
  desk       Desk: what a command has of the world; which exchanges were asked for, and in which ledger they are
  hints      what was probably meant: near words for commands, options, keys and models
  gaps       what is in no row: requests that wait beside the ledger, and lost ones
  columns    tables, money, CSV and JSON that no name in them can break
  usage      requests, tokens and cost by day, key, model ...
  tail       the last requests, and new ones as they end
  prices     what the price table says
  upkeep     check, export, prune
  keys       create, list, show, change, disable, enable, rotate, remove; groups; what kills left reserved
             key_arguments: what can be said to it; key_fields: what that means; key_views: keys in words
  models     aliases that are stored: list, set, remove
  announce   tells a running server that keys or aliases have changed

Only cli imports it. Nothing here reads a clock or the environment: cli brings them.
"""
