"""What the two halves of a method agree on: message names, record keys, shapes. One file per method.

Registered as kind `contract`."""
