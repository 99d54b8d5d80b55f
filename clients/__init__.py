"""The client side of every method; file names as in `fedimb.strategies`. Imported as `fedimb.clients`.

Registered as kind `client`."""
