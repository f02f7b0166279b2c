"""The store of a co-op with several controllers: etcd v3 over gRPC; nothing outside this package knows either."""

import os

# Before grpc is imported: its fork handlers would run at every check and command hook that is started,
# each taking milliseconds and, under load, printing errors. Nobody here forks without exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Its core writes each failed connection to stderr, again and again; ours are logged once.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from controller.store.etcd.access import Login, Tls
from controller.store.etcd.store import EtcdStore

__all__ = ["EtcdStore", "Login", "Tls"]
