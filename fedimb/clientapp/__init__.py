"""The client side of a run: the ClientApp, its runtime, local training, and the state a client keeps."""
