"""Where things are unless the user says otherwise."""

OUTPUT_DIR = "runs"  # output_dir of configs/config.yaml, which takes Hydra to read
