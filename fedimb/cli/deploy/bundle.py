"""Write everything a node needs into one tar, for a hospital whose machines reach no package index.

The tar holds fedimb's wheel and the exact versions of all it needs, as installed here, with checksums, a table of
licences, and install.sh, which needs neither root nor a network. The hospital's machine needs the same Python (3.x) and
the same kind of machine as this one; its C library must not be older.

  fedimb deploy bundle --to /media/usb
  fedimb deploy bundle --extra dicom          with what DICOM images need
  fedimb deploy bundle --without torch        where the hospital has its own, for its graphics card
"""

import argparse

LINE = "write a tar of wheels for nodes without a package index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the action."""
    parser.add_argument("--to", default=".", metavar="DIR", help="folder it is written into (the working folder)")
    parser.add_argument("--extra", action="append", default=[], metavar="NAME", help="an extra of fedimb; repeatable")
    parser.add_argument("--without", action="append", default=[], metavar="PACKAGE", help="leave out; repeatable")
    parser.add_argument("--wheel", metavar="FILE", help="fedimb's own wheel (default: made from where it is installed)")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    from pathlib import Path

    from fedimb.deploy.offline import write_bundle

    wheel = Path(args.wheel) if args.wheel else None
    made = write_bundle(Path(args.to), args.extra, args.without, wheel, say=lambda line: print(line, flush=True))
    print(f"{made} ({made.stat().st_size / 1e6:.0f} MB): unpack it at the hospital and run ./install.sh")
    return 0
