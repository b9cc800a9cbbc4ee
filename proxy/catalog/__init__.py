"""Which names exist? Providers, their origins and credentials, as one frozen snapshot that is replaced whole.

secret      Secret: the only type a secret value lives in
snapshot    Provider, Origin, Snapshot: dict lookups, nothing else
families    the one table of what differs between families of providers
urls        base URLs and forward proxies out of text
load        environment mapping -> Snapshot, all errors at once
"""
