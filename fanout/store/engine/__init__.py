"""The engine below the stores: locations, connections, transactions, writers and upgrades."""
