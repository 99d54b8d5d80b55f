"""The server side of every method, one file each. Imported as `fedimb.strategies`, never as `strategies`.

Registered as kind `strategy`."""
