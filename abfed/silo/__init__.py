"""Inside a brand: rows, policy, ledger, and the gate that is the only way out."""
