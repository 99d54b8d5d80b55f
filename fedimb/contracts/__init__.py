"""What the server and client sides of a method agree on: message names, record keys, shapes. One file per method.

Registered as kind `contract`."""
