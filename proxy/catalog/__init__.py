"""Which names exist? Providers, their origins and credentials, as one frozen snapshot that is replaced whole.

secret      Secret: the only type a secret value lives in
mask        Mask: hides secrets that somebody sends back
snapshot    Provider, Origin, Snapshot: dict lookups, nothing else
aliases     Choice, Alias: a name of clients, and the targets that may answer to it
alias_text  aliases as people write them, both ways
windows     context windows of well-known models
families    the one table of what differs between families of providers
urls        base URLs and forward proxies out of text
load        environment mapping -> Snapshot, all errors at once
price_file  a document of prices, ours (prices.json) or a user's: its form, all that is wrong in it
price_table which rows of one document hold for a model, and when
prices      what an exchange costs: whose prices hold, tables over each other, the sum
"""
