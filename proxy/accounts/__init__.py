"""What was spent, for people: the commands `usage`, `tail`, `prices` and `ledger`.

  arguments  which commands there are, and what can be said to them
  desk       Desk: what a command has of the world; which exchanges were asked for, and in which ledger they are
  hints      what was probably meant: near words for commands, options, keys and models
  gaps       what is in no row: requests that wait beside the ledger, and lost ones
  columns    tables, money, CSV and JSON that no name in them can break
  usage      requests, tokens and cost by day, key, model ...
  tail       the last requests, and new ones as they end
  prices     what the price table says
  upkeep     check, export, prune

Only cli imports it. Nothing here reads a clock or the environment: cli brings them.
"""
