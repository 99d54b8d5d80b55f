"""CLIENT half of every method, same file names as the server halves. Imported as `fedimb.clients`.

Registered as kind `client`."""
