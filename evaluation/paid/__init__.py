"""What costs money: planned, consented to, asked with patience, and read back from the ledger."""
