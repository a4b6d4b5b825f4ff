"""The ledger: our tables in Joget's database, which say what the sync made and applied."""
