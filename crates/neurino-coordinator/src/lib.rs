//! Router, leases, ledger, gateway: the network's server.
